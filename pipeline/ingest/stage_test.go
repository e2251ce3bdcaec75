package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

func newStage(tb testing.TB, onBus bus.Publisher, change func(*Config)) *Stage {
	tb.Helper()
	cfg := DefaultConfig()
	cfg.Topic, cfg.Instance = rawTopics.SeedMetrics, "ingest-1"
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, onBus, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// keyOf returns the key of a record that was read.
func keyOf(t testing.TB, m *message.Message) string {
	t.Helper()
	at, err := bus.PositionOf(m)
	if err != nil {
		t.Error(err)
	}
	return string(at.Key)
}

func post(s *Stage, mediaType string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/frames", bytes.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func goodFrame(sequence int64) *oona.Frame {
	return &oona.Frame{
		Run: "digits", Layer: "enc.1", Producer: "trainer-0", Epoch: 1_790_000_000_000_000,
		Sequence: sequence, ObservedAt: 1_790_000_001_000_000, Step: 7,
		Seeds:  []oona.SeedID{0, 1, 2, 3},
		States: []oona.State{oona.Dormant, oona.Training, oona.Grafting, oona.Fossilized},
		Metrics: []oona.Column{
			{Name: "gradient_norm", Values: []float32{1, 2, 3, 4}},
			{Name: "blend", Values: []float32{0, .25, .5, 1}},
		},
	}
}

// frames encodes good frames. The function with the index of a frame changes it.
func frames(changes ...func(*oona.Frame)) []byte {
	var body []byte
	for i, change := range changes {
		f := goodFrame(int64(i))
		if change != nil {
			change(f)
		}
		body = avro.AppendFrame(body, f)
	}
	return body
}

const goodJSON = `{"run_id":"digits","layer_id":"enc.1","producer_id":"trainer-0","producer_epoch":1790000000000000,"sequence":0,
"observed_at":1790000001000000,"step":7,"seed_ids":[0,1,2,3],"states":["DORMANT","training",3,"FOSSILIZED"],
"metrics":[{"name":"gradient_norm","values":[1,2,3,4]},{"name":"blend","values":[0,2.5e-1,0.5,1]}]}`

func TestAcceptedAvro(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, nil)
	body := frames(nil, func(f *oona.Frame) { f.Layer = "enc.2" }, nil)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w := post(s, mediaAvro, body, "traceparent", trace, "oona-record", "tick/1", "oona-path", "elsewhere", "$key", "x")
	if w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":3}\n" || w.Header().Get("Content-Type") != mediaJSON {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	calls, messages := onBus.published(t)
	if calls != 1 || len(messages) != 3 {
		t.Fatalf("%d messages in %d calls", len(messages), calls)
	}
	var values []byte
	for i, m := range messages {
		layer := []oona.LayerID{"enc.1", "enc.2", "enc.1"}[i]
		want := message.Metadata{oona.HeaderPath: "ingest-1", "traceparent": trace}
		if key := keyOf(t, m); len(m.Metadata) != len(want) || key != string(oona.Key("digits", layer)) {
			t.Errorf("metadata is %q, key %q", m.Metadata, key)
		}
		for name, value := range want {
			if m.Metadata[name] != value {
				t.Errorf("metadata %s is %q, want %q", name, m.Metadata[name], value)
			}
		}
		values = append(values, m.Payload...)
	}
	if !bytes.Equal(values, body) {
		t.Error("the records are not the bytes that were sent")
	}
	if got, want := s.Counts(), (Counts{Requests: 1, Frames: 3, Readings: 12}); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
	for name, want := range map[prometheus.Collector]float64{
		s.counts.framesTotal: 3, s.counts.readingsTotal: 12, s.counts.bytesTotal: float64(len(body)),
		s.metrics.requestsTotal.WithLabelValues("200"): 1, s.metrics.inFlight: 0,
	} {
		if got := testutil.ToFloat64(name); got != want {
			t.Errorf("a metric is %g, want %g", got, want)
		}
	}
}

// A frame in JSON becomes the same record as the frame in Avro.
func TestAcceptedJSON(t *testing.T) {
	for name, body := range map[string]string{"object": goodJSON, "array": " [ " + goodJSON + " ]\n"} {
		onBus := newBus(t)
		w := post(newStage(t, onBus, nil), mediaJSON+"; charset=utf-8", []byte(body))
		_, messages := onBus.published(t)
		if w.Code != http.StatusOK || len(messages) != 1 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		if !bytes.Equal(messages[0].Payload, frames(nil)) {
			t.Errorf("%s: the record is not the frame", name)
		}
	}
}

// Integers are read exactly, in any notation.
func TestWholeNumbersInJSON(t *testing.T) {
	for text, want := range map[string]int64{
		"100000": 1e5, "1e5": 1e5, "1e+05": 1e5, "1E5": 1e5, "100000.0": 1e5, "100000.000e-0": 1e5, "1000000e-1": 1e5, "0.1e6": 1e5, "0.000001e11": 1e5,
		"0": 0, "-0": 0, "-0.0": 0, "0e99999999999999999999": 0, "0.000e-99999999999999999999": 0, "1.0": 1, "10": 10, "1e1": 10,
		"9223372036854775807.0": math.MaxInt64, "9.223372036854775807e18": math.MaxInt64, "0.9223372036854775807e+19": math.MaxInt64,
		"9007199254740993.0": 9007199254740993, "1." + strings.Repeat("0", 1000): 1, "1" + strings.Repeat("0", 1000) + "e-1000": 1,
	} {
		onBus := newBus(t)
		body := strings.Replace(goodJSON, `"step":7`, `"step":`+text, 1)
		if w := post(newStage(t, onBus, nil), mediaJSON, []byte(body)); w.Code != http.StatusOK {
			t.Errorf("step %.60s is answered %d %s", text, w.Code, w.Body)
			continue
		}
		_, messages := onBus.published(t)
		var f oona.Frame
		if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil || f.Step != want {
			t.Errorf("step %.60s becomes %d, error %v", text, f.Step, err)
		}
	}
	onBus, store := newBus(t), newStore(t)
	body := `{"run_id":"r","layer_id":"l","producer_id":"p","producer_epoch":1.79e15,"sequence":1e0,"observed_at":1.790000001e15,"seed_ids":[0.0,1e0],"states":[2.0,1e1],
	 "tensors":[{"name":"w","seed_id":1.0,"dtype":"uint8","shape":[1e1],"data":"AAAAAAAAAAAAAA=="}]}`
	if w := post(newStageWithStore(t, onBus, store), mediaJSON, []byte(body)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published(t)
	var f oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil {
		t.Fatal(err)
	}
	if f.Epoch != 1_790_000_000_000_000 || f.Sequence != 1 || f.ObservedAt != 1_790_000_001_000_000 || f.Seeds[1] != 1 || f.States[1] != oona.RolledBack || f.Tensors[0].Shape[0] != 10 {
		t.Errorf("frame is %+v", f)
	}
}

// A value beyond the range of float32 becomes an infinity, as in PyTorch.
func TestGreatValuesInJSON(t *testing.T) {
	onBus := newBus(t)
	body := strings.Replace(goodJSON, "[0,2.5e-1,0.5,1]", "[1e39,-1.7976931348623157e308,3.4028235e38,1e-300]", 1)
	if w := post(newStage(t, onBus, nil), mediaJSON, []byte(body)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published(t)
	var f oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil {
		t.Fatal(err)
	}
	want := []float32{float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, 0}
	if !slices.Equal(f.Metrics[1].Values, want) {
		t.Errorf("values are %v, want %v", f.Metrics[1].Values, want)
	}
}

func TestJSONSpecials(t *testing.T) {
	onBus, store := newBus(t), newStore(t)
	claim, _, err := store.CheckIn(t.Context(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	body := `[{"tensors":[
	  {"name":"w","seed_id":1,"dtype":"float32","shape":[2],"data":"AAAAAAAAgD8="},
	  {"name":"b","seed_id":0,"dtype":"uint8","shape":[],"data":` + claimJSON(claim) + `}],
	 "metrics":[{"values":[null,"NaN","Infinity","-Infinity",-1.5e-3,16777217],"name":"m\u0061"}],
	 "states":[0,1,2,3,10,"rolled_back"],"seed_ids":[0,1,2,3,4,2147483647],"timeline":"rank:3","step":0,
	 "observed_at":1790000001000000,"sequence":9223372036854775807,"producer_epoch":0,"producer_id":"p","layer_id":"l","run_id":"\u0072"}]`
	if w := post(newStageWithStore(t, onBus, store), mediaJSON, []byte(body)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published(t)
	var f oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil {
		t.Fatal(err)
	}
	v := f.Metrics[0].Values
	if v[0] == v[0] || v[1] == v[1] || !math.IsInf(float64(v[2]), 1) || !math.IsInf(float64(v[3]), -1) || v[4] != -1.5e-3 || v[5] != 16777216 {
		t.Errorf("values are %v", v)
	}
	if f.Run != "r" || f.Timeline != "rank:3" || f.Sequence != math.MaxInt64 || f.Metrics[0].Name != "ma" || f.States[5] != oona.RolledBack || f.Seeds[5] != math.MaxInt32 {
		t.Errorf("frame is %+v", f)
	}
	if !bytes.Equal(f.Tensors[0].Data, []byte{0, 0, 0, 0, 0, 0, 0x80, 0x3f}) || *f.Tensors[1].Claim != claim {
		t.Errorf("tensors are %+v", f.Tensors)
	}
}

// NaN means not measured. Infinities are accepted, and counted by the aggregator.
func TestNotMeasuredAndInfiniteAreAccepted(t *testing.T) {
	onBus := newBus(t)
	body := frames(func(f *oona.Frame) {
		f.Metrics[0].Values = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0}
	})
	if w := post(newStage(t, onBus, nil), mediaAvro, body); w.Code != http.StatusOK {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
}

// If the bus refuses frames as too large together, they are published one by one, in
// order. The answer names a frame that is too large by itself.
func TestFramesTooLargeTogether(t *testing.T) {
	large := func(f *oona.Frame) { manySeeds(900)(f); manyMetrics(8)(f) }
	for name, c := range map[string]struct {
		frames []func(*oona.Frame)
		code   int
		onBus  []int64 // sequences
		frame  int
	}{
		"all fit":  {make([]func(*oona.Frame), 5), http.StatusOK, []int64{0, 1, 2, 3, 4}, noFrame},
		"one not":  {[]func(*oona.Frame){nil, large, nil}, http.StatusRequestEntityTooLarge, []int64{0, 2}, 1},
		"just one": {[]func(*oona.Frame){large}, http.StatusRequestEntityTooLarge, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := newBus(t, limited(20_000))
			onBus.before = oneByOne
			s := newStage(t, onBus, nil)
			w := post(s, mediaAvro, frames(c.frames...))
			var sequences []int64
			for _, m := range onBus.on(t, s.cfg.Topic) {
				var f oona.Frame
				if _, err := new(avro.FrameDecoder).Decode(m.Payload, &f); err != nil {
					t.Fatal(err)
				}
				sequences = append(sequences, f.Sequence)
			}
			if w.Code != c.code || !slices.Equal(sequences, c.onBus) {
				t.Errorf("answer is %d %s; on the bus are %v", w.Code, w.Body, sequences)
			}
			if c.frame != noFrame {
				if p := decodeProblem(t, w); p.Frame == nil || *p.Frame != c.frame || p.Type != "urn:oona:problem:too-large" {
					t.Errorf("the problem is %s", w.Body)
				}
			}
			if _, failed := onBus.count(s.cfg.Topic); failed == 0 {
				t.Error("the bus has refused nothing, and the test tests nothing")
			}
		})
	}
}

// oneByOne refuses batches of several messages as too large. bus/memory has no limit for
// batches.
func oneByOne(_ string, messages []*message.Message) error {
	if len(messages) > 1 {
		return bus.ErrTooLarge
	}
	return nil
}

func TestPublisherFails(t *testing.T) {
	for name, c := range map[string]struct {
		err        error
		times      int // the batch, and each frame
		code       int
		reason     intake.Reason
		retryAfter string
	}{
		"bus down":  {errors.New("no brokers"), 1, http.StatusServiceUnavailable, reasonPublish, "5"},
		"too large": {errors.Join(errors.New("send"), bus.ErrTooLarge), 3, http.StatusRequestEntityTooLarge, intake.ReasonTooLarge, ""},
		"not large": {errors.New("record too large"), 1, http.StatusServiceUnavailable, reasonPublish, "5"},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := newBus(t)
			onBus.Refuse(func(string, int32) error { return c.err })
			s := newStage(t, onBus, nil)
			w := post(s, mediaAvro, frames(nil, nil))
			if p := decodeProblem(t, w); w.Code != c.code || w.Header().Get("Retry-After") != c.retryAfter || p.Type != "urn:oona:problem:"+string(c.reason) {
				t.Errorf("answer is %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if _, failed := onBus.count(s.cfg.Topic); failed != c.times {
				t.Errorf("the bus has refused %d calls, want %d", failed, c.times)
			}
			onBus.Refuse(nil)
			if w := post(s, mediaAvro, frames(nil, nil)); w.Code != http.StatusOK {
				t.Errorf("the repeat is answered %d", w.Code)
			}
			if got, want := s.Counts(), (Counts{Requests: 2, Refused: 1, Frames: 2, Readings: 8, Unconfirmed: 2}); got != want {
				t.Errorf("counts are %+v, want %+v", got, want)
			}
		})
	}
}

// When the number of partitions of the topic has changed, no frame is accepted.
func TestPartitionsAreAdded(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, nil)
	if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	if err := onBus.AddPartitions(s.cfg.Topic, 2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w := post(s, mediaAvro, frames(nil))
		if p := decodeProblem(t, w); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "60" || p.Type != "urn:oona:problem:"+string(reasonPartitions) {
			t.Errorf("answer is %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	if n := len(onBus.on(t, s.cfg.Topic)); n != 1 {
		t.Errorf("%d frames are on the bus, want 1", n)
	}
}

// A request to a bus that does not answer gets 503 at the timeout and holds its
// slot until then. Its frames are withdrawn.
func TestPublisherHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		s := newStage(t, onBus, func(c *Config) { c.MaxInFlight = 1 })
		if err := onBus.Freeze(s.cfg.Topic, 0); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var hanging sync.WaitGroup
		hanging.Go(func() {
			w := post(s, mediaAvro, frames(nil))
			if took := time.Since(began); w.Code != http.StatusServiceUnavailable || took != s.cfg.PublishTimeout || w.Header().Get("Retry-After") == "" {
				t.Errorf("answer is %d after %s: %s", w.Code, took, w.Body)
			}
			if p := decodeProblem(t, w); p.Type != "urn:oona:problem:"+string(reasonTimeout) {
				t.Errorf("the problem is %s", p.Type)
			}
		})
		synctest.Wait()
		if n := onBus.Waiting(s.cfg.Topic, 0); n != 1 {
			t.Errorf("%d frames wait for the bus, want 1", n)
		}
		w := post(s, mediaAvro, frames(nil))
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("while the only slot is held the answer is %d %s", w.Code, w.Body)
		}
		hanging.Wait()
		if err := onBus.Thaw(s.cfg.Topic, 0); err != nil {
			t.Fatal(err)
		}
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("once the bus answers: %d %s", w.Code, w.Body)
		}
		if calls, messages := onBus.published(t); calls != 2 || len(messages) != 1 {
			t.Errorf("%d calls of Publish and %d frames, want 2 and 1: the refused request is not published, the other withdrawn", calls, len(messages))
		}
	})
}

// The bytes of records do not change while a publisher holds them and other requests are
// served.
func TestRecordsThatWaitKeepTheirBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		onBus := newBus(t)
		onBus.before = func(string, []*message.Message) error {
			if calls, _ := onBus.count(rawTopics.SeedMetrics); calls == 1 {
				<-release
			}
			return nil
		}
		s := newStage(t, onBus, nil)
		first := frames(nil, nil)
		var waiting sync.WaitGroup
		waiting.Go(func() { post(s, mediaAvro, first) })
		synctest.Wait()
		for range 10 {
			post(s, mediaAvro, frames(func(f *oona.Frame) { f.Run = "xxxxxx" }, func(f *oona.Frame) { f.Run = "yyyyyy" }))
			post(s, mediaJSON, []byte(strings.ReplaceAll(goodJSON, "digits", "zzzzzz")))
		}
		close(release)
		waiting.Wait()
		_, messages := onBus.published(t)
		if len(messages) != 32 {
			t.Fatalf("%d frames are on the bus, want 32", len(messages))
		}
		if got := slices.Concat(messages[30].Payload, messages[31].Payload); !bytes.Equal(got, first) {
			t.Error("the first request's records have changed")
		}
	})
}

func TestRunServesAndDrains(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, func(c *Config) { c.PublishTimeout = 5 * time.Minute })
	if s.Ready() == nil {
		t.Error("ready before it runs")
	}
	server := startStage(t, s)
	if code := server.post(t, mediaAvro, frames(nil)); code != http.StatusOK {
		t.Errorf("first answer is %d", code)
	}
	if err := s.Ready(); err != nil {
		t.Errorf("not ready while it serves: %v", err)
	}
	if err := onBus.Freeze(s.cfg.Topic, 0); err != nil {
		t.Fatal(err)
	}
	inHand := make(chan int)
	go func() { inHand <- server.post(t, mediaAvro, frames(nil)) }()
	for onBus.Waiting(s.cfg.Topic, 0) == 0 {
		time.Sleep(time.Millisecond)
	}
	server.cancel()
	for s.Ready() == nil { // ends once Run has seen the order
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-server.ended:
		t.Fatalf("Run ended with a request in hand: %v", err)
	default:
	}
	if err := onBus.Thaw(s.cfg.Topic, 0); err != nil {
		t.Fatal(err)
	}
	if code := <-inHand; code != http.StatusOK {
		t.Errorf("the request in hand is answered %d", code)
	}
	if err := <-server.ended; err != nil {
		t.Error(err)
	}
}

type running struct {
	url    string
	cancel func()
	ended  chan error
}

func (r *running) post(t *testing.T, mediaType string, body []byte) int {
	response, err := http.Post(r.url, mediaType, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func decodeProblem(t *testing.T, w *httptest.ResponseRecorder) problem {
	t.Helper()
	var p problem
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("media type is %q", got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if p.Status != w.Code {
		t.Errorf("status %d in the body of a %d", p.Status, w.Code)
	}
	return p
}
