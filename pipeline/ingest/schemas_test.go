package ingest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// frameSchema is the text of the latest published schema of frames.
func frameSchema(t testing.TB) (text string) {
	t.Helper()
	for _, s := range avro.Schemas() {
		if s.Name == "kasmina.telemetry.SeedMetrics" {
			text = s.Text
		}
	}
	if text == "" {
		t.Fatal("there is none")
	}
	return text
}

// smallSchema is one that a trainer may have: in another order, with a field of its own,
// and without those that have defaults.
const smallSchema = `{"type":"record","name":"SeedMetrics","namespace":"trainer","fields":[
	{"name":"note","type":"string"},
	{"name":"layer_id","type":"string"},{"name":"run_id","type":"string"},{"name":"producer_id","type":"string"},
	{"name":"producer_epoch","type":"long"},{"name":"sequence","type":"int"},{"name":"observed_at","type":"long"},
	{"name":"seed_ids","type":{"type":"array","items":"int"}},{"name":"states","type":"bytes"}]}`

// smallFrame is a frame in that schema.
func smallFrame(sequence byte) []byte {
	long := []byte{0x80, 0x80, 0xaf, 0xa2, 0xdb, 0xff, 0xad, 0x06} // 1,790,000,000,000,000
	var b []byte
	for _, text := range []string{"hello", "enc.1", "digits", "trainer-0"} {
		b = append(append(b, byte(2*len(text))), text...)
	}
	b = append(b, long...)
	b = append(b, 2*sequence)
	b = append(b, long...)
	return append(b, 4, 0, 2, 0, 4, 0, 2) // seeds 0 and 1, states 0 and 2
}

// header returns the header that serializers write for a GUID.
func header(t testing.TB, guid string) string {
	t.Helper()
	bytes, err := hex.DecodeString(strings.ReplaceAll(guid, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	return "\x01" + string(bytes)
}

// withRegistry lets a stage use a registry.
func withRegistry(t testing.TB, c registry.Config) func(*Config) {
	t.Helper()
	r, err := registry.Open(c, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *Config) { cfg.Registry = r }
}

// registered frames single objects as a serializer of the registry does.
func registered(t testing.TB, id avro.SchemaID, single []byte) []byte {
	t.Helper()
	body, err := avro.Body(single)
	if err != nil {
		t.Fatal(err)
	}
	return append(avro.AppendSchemaID(nil, id.Number), body...)
}

// Frames with the framing of a registry become the records that they become without it.
func TestFramesOfARegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	small := fake.Register("small-value", smallSchema)
	onBus := newBus(t)
	s := newStage(t, onBus, withRegistry(t, fake.Config))
	var body, want []byte
	for i := range 3 {
		single := avro.AppendFrame(nil, goodFrame(int64(i)))
		body, want = append(body, registered(t, id, single)...), append(want, single...)
	}
	body = append(append(body, avro.AppendSchemaID(nil, small.Number)...), smallFrame(3)...)
	want = avro.AppendFrame(want, &oona.Frame{
		Run: "digits", Layer: "enc.1", Producer: "trainer-0", Epoch: 1_790_000_000_000_000, Sequence: 3, ObservedAt: 1_790_000_000_000_000,
		Seeds: []oona.SeedID{0, 1}, States: []oona.State{0, 2},
	})
	if w := post(s, mediaAvro, body); w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":4}\n" {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published(t)
	var values []byte
	for _, m := range messages {
		values = append(values, m.Payload...)
	}
	if !bytes.Equal(values, want) {
		t.Errorf("the records are %x, want %x", values, want)
	}
	if n := fake.Requests(); n != 2 {
		t.Errorf("the registry got %d requests for two schemas", n)
	}
	if used := s.frames.inUse(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
}

// What cannot become a frame is refused, and the refusal says whether it can be sent
// again.
func TestRefusedFramesOfARegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	other := fake.Register("other-value", `{"type":"record","name":"Other","fields":[{"name":"x","type":"int"}]}`)
	millis := fake.Register("millis-value", strings.Replace(frameSchema(t), "timestamp-micros", "timestamp-millis", 1))
	good := registered(t, id, frames(nil))
	framed := func(id avro.SchemaID, body ...byte) []byte {
		return append(avro.AppendSchemaID(nil, id.Number), body...)
	}
	bad := goodFrame(0)
	bad.Run = "not an id"
	for name, c := range map[string]struct {
		body  []byte
		code  int
		why   intake.Reason
		frame int
	}{
		"unknown id":        {framed(avro.SchemaID{Number: 4711}), 400, reasonSchema, 0},
		"the second":        {append(bytes.Clone(good), framed(avro.SchemaID{Number: 4711})...), 400, reasonSchema, 1},
		"another record":    {framed(other, 2), 400, reasonSchema, 0},
		"milliseconds":      {registered(t, millis, frames(nil)), 400, reasonSchema, 0},
		"only a prefix":     {[]byte{0, 0, 0}, 400, intake.ReasonUndecodable, 0},
		"cut off":           {good[:len(good)-1], 400, intake.ReasonUndecodable, 0},
		"something follows": {append(bytes.Clone(good), 1), 400, intake.ReasonUndecodable, 1},
		"not valid":         {registered(t, id, avro.AppendFrame(nil, bad)), 400, intake.ReasonInvalid, 0},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := newBus(t)
			s := newStage(t, onBus, withRegistry(t, fake.Config))
			w := post(s, mediaAvro, c.body)
			var p problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.code || p.Type != "urn:oona:problem:"+string(c.why) || p.Frame == nil || *p.Frame != c.frame {
				t.Errorf("answer is %d %s", w.Code, w.Body)
			}
			if c.why == reasonSchema && name == "unknown id" && !strings.Contains(p.Detail, "4711") {
				t.Errorf("the answer does not name the id: %s", p.Detail)
			}
			if calls, _ := onBus.published(t); calls != 0 {
				t.Error("something was published")
			}
		})
	}
	s := newStage(t, newBus(t), withRegistry(t, fake.Config))
	if w := post(s, mediaJSON, good); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("as JSON it is answered %d %s", w.Code, w.Body)
	}
}

// While the registry does not answer, requests that need it are refused with a time to wait, and
// others are accepted.
func TestTheRegistryIsAway(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	fake.Answer(http.StatusServiceUnavailable, "")
	s := newStage(t, newBus(t), withRegistry(t, fake.Config))
	body := registered(t, id, frames(nil))
	w := post(s, mediaAvro, body)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), "urn:oona:problem:registry") {
		t.Errorf("answer is %d %s %v", w.Code, w.Body, w.Header())
	}
	if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
		t.Errorf("a frame that needs no registry is answered %d", w.Code)
	}
	if used := s.frames.inUse(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
	fake.AnswerBy(nil)
	for deadline := time.Now().Add(5 * time.Minute); post(s, mediaAvro, body).Code != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not accepted when the registry is back")
		}
	}
}

// A few requests may wait for the registry. The others are answered.
func TestFewRequestsWaitForTheRegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	asked, release := make(chan struct{}, 100), make(chan struct{})
	fake.AnswerBy(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-release
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	use := withRegistry(t, fake.Config)
	s := newStage(t, newBus(t), func(c *Config) {
		use(c)
		c.MaxInFlight, c.MaxTensorRequests = 8, 4
	})
	codes := make(chan int)
	send := func(address string, id int32) *httptest.ResponseRecorder {
		return postFrom(s, address, "", avro.AppendSchemaID(nil, id))
	}
	for i, address := range []string{"10.0.0.1:1", "10.0.0.2:1"} { // a quarter of them
		go func() { codes <- send(address, int32(i+1)).Code }()
		<-asked
		if w := send("10.0.0.1:1", 4); i == 0 && w.Code != http.StatusTooManyRequests {
			t.Errorf("a client that has its share is answered %d %s", w.Code, w.Body)
		}
	}
	w := send("10.0.0.3:1", 3)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("one more is answered %d %s", w.Code, w.Body)
	}
	if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
		t.Errorf("a frame that needs no registry is answered %d", w.Code)
	}
	close(release)
	for range 2 {
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Errorf("one that waited is answered %d", code)
		}
	}
}

// Records of the raw topic wait while the registry does not answer, in their order, and records of
// other partitions do not. What the registry denies is a dead letter.
func TestRawFramesOfARegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	guid := fake.GUID("raw-value")
	config := fake.Config
	synctest.Test(t, func(t *testing.T) {
		config.Transport = fake
		fake.Answer(http.StatusServiceUnavailable, "")
		onBus := newBus(t)
		p := startRaw(t, onBus, withRegistry(t, config))
		single := func(i int) []byte { return avro.AppendFrame(nil, goodFrame(int64(i))) }
		body, err := avro.Body(single(1))
		if err != nil {
			t.Fatal(err)
		}
		p.send(string(registered(t, id, single(0))))
		p.send(string(body), intake.RegistrySchemaHeader, header(t, guid))
		p.send(string(single(2)))
		p.sendTo(2, string(single(3)))
		time.Sleep(10 * time.Minute)
		if got := onBus.on(t, rawTopics.SeedMetrics); len(got) != 1 || string(got[0].Payload) != string(single(3)) {
			t.Fatalf("%d frames were published while the registry did not answer", len(got))
		}
		if n := testutil.ToFloat64(p.metrics.retries.WithLabelValues("schemas")); n < 100 {
			t.Errorf("%g attempts are counted", n)
		}
		fake.AnswerBy(nil)
		p.send("\x00\x00\x00\x12\x67")
		p.send(string(body), intake.RegistrySchemaHeader, "\x02?")
		p.send(string(body)+"x", intake.RegistrySchemaHeader, header(t, guid))
		p.settledTo(6)
		got := onBus.on(t, rawTopics.SeedMetrics)
		if len(got) != 4 {
			t.Fatalf("%d frames were published", len(got))
		}
		for i, m := range got[1:] {
			if !bytes.Equal(m.Payload, single(i)) {
				t.Errorf("frame %d is %x", i, m.Payload)
			}
		}
		for reason, want := range map[intake.Reason]float64{reasonSchema: 1, intake.ReasonUndecodable: 2} {
			if n := testutil.ToFloat64(p.metrics.dead.WithLabelValues(string(reason))); n != want {
				t.Errorf("%g dead letters for %s", n, reason)
			}
		}
		p.end()
	})
}
