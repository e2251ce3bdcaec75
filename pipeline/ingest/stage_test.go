package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/morphogenetic/oona/schemas/avro"
)

// fakeBus is a publisher whose answers are scripted.
type fakeBus struct {
	answer func(call int) error // nil: everything is acknowledged

	mu    sync.Mutex
	calls [][]*message.Message
	topic string
}

func (*fakeBus) Close() error { return nil }

func (b *fakeBus) Publish(_ context.Context, topic string, messages ...*message.Message) error {
	b.mu.Lock()
	call := len(b.calls)
	b.calls = append(b.calls, messages)
	b.topic = topic
	b.mu.Unlock()
	if b.answer == nil {
		return nil
	}
	return b.answer(call)
}

func (b *fakeBus) published() (calls int, messages []*message.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.calls), slices.Concat(b.calls...)
}

func newStage(tb testing.TB, onBus bus.Publisher, change func(*Config)) *Stage {
	tb.Helper()
	cfg := DefaultConfig()
	cfg.Topic, cfg.Instance = "kasmina.telemetry.seed.metrics", "ingest-1"
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, onBus, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return s
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

// frames encodes good frames, each changed by the function of its place.
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
	onBus := &fakeBus{}
	s := newStage(t, onBus, nil)
	body := frames(nil, func(f *oona.Frame) { f.Layer = "enc.2" }, nil)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w := post(s, mediaAvro, body, "traceparent", trace, "oona-record", "tick/1", "oona-path", "elsewhere", "$key", "x")
	if w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":3}\n" || w.Header().Get("Content-Type") != mediaJSON {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	calls, messages := onBus.published()
	if calls != 1 || len(messages) != 3 || onBus.topic != "kasmina.telemetry.seed.metrics" {
		t.Fatalf("%d messages to %s in %d calls", len(messages), onBus.topic, calls)
	}
	var values []byte
	for i, m := range messages {
		layer := []oona.LayerID{"enc.1", "enc.2", "enc.1"}[i]
		want := message.Metadata{oona.HeaderPath: "ingest-1", "traceparent": trace}
		if key := bus.TargetOf(m).Key; len(m.Metadata) != len(want) || string(key) != string(oona.Key("digits", layer)) {
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

// A record of JSON is what the same frame in Avro would be.
func TestAcceptedJSON(t *testing.T) {
	for name, body := range map[string]string{"object": goodJSON, "array": " [ " + goodJSON + " ]\n"} {
		onBus := &fakeBus{}
		w := post(newStage(t, onBus, nil), mediaJSON+"; charset=utf-8", []byte(body))
		_, messages := onBus.published()
		if w.Code != http.StatusOK || len(messages) != 1 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		if !bytes.Equal(messages[0].Payload, frames(nil)) {
			t.Errorf("%s: the record is not the frame", name)
		}
	}
}

// A whole number is one however it is written, and exactly that.
func TestWholeNumbersInJSON(t *testing.T) {
	for text, want := range map[string]int64{
		"100000": 1e5, "1e5": 1e5, "1e+05": 1e5, "1E5": 1e5, "100000.0": 1e5, "100000.000e-0": 1e5, "1000000e-1": 1e5, "0.1e6": 1e5, "0.000001e11": 1e5,
		"0": 0, "-0": 0, "-0.0": 0, "0e99999999999999999999": 0, "0.000e-99999999999999999999": 0, "1.0": 1, "10": 10, "1e1": 10,
		"9223372036854775807.0": math.MaxInt64, "9.223372036854775807e18": math.MaxInt64, "0.9223372036854775807e+19": math.MaxInt64,
		"9007199254740993.0": 9007199254740993, "1." + strings.Repeat("0", 1000): 1, "1" + strings.Repeat("0", 1000) + "e-1000": 1,
	} {
		onBus := &fakeBus{}
		body := strings.Replace(goodJSON, `"step":7`, `"step":`+text, 1)
		if w := post(newStage(t, onBus, nil), mediaJSON, []byte(body)); w.Code != http.StatusOK {
			t.Errorf("step %.60s is answered %d %s", text, w.Code, w.Body)
			continue
		}
		_, messages := onBus.published()
		var f oona.Frame
		if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil || f.Step != want {
			t.Errorf("step %.60s becomes %d, error %v", text, f.Step, err)
		}
	}
	onBus, store := &fakeBus{}, newStore(t)
	body := `{"run_id":"r","layer_id":"l","producer_id":"p","producer_epoch":1.79e15,"sequence":1e0,"observed_at":1.790000001e15,"seed_ids":[0.0,1e0],"states":[2.0,1e1],
	 "tensors":[{"name":"w","seed_id":1.0,"dtype":"uint8","shape":[1e1],"data":"AAAAAAAAAAAAAA=="}]}`
	if w := post(newStageWithStore(t, onBus, store), mediaJSON, []byte(body)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published()
	var f oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(messages[0].Payload, &f); err != nil {
		t.Fatal(err)
	}
	if f.Epoch != 1_790_000_000_000_000 || f.Sequence != 1 || f.ObservedAt != 1_790_000_001_000_000 || f.Seeds[1] != 1 || f.States[1] != oona.RolledBack || f.Tensors[0].Shape[0] != 10 {
		t.Errorf("frame is %+v", f)
	}
}

// What a float32 has no room for is an infinity, as torch would make it.
func TestGreatValuesInJSON(t *testing.T) {
	onBus := &fakeBus{}
	body := strings.Replace(goodJSON, "[0,2.5e-1,0.5,1]", "[1e39,-1.7976931348623157e308,3.4028235e38,1e-300]", 1)
	if w := post(newStage(t, onBus, nil), mediaJSON, []byte(body)); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published()
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
	onBus, store := &fakeBus{}, newStore(t)
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
	_, messages := onBus.published()
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

// NaN means not measured; infinities are for the reader to count.
func TestNotMeasuredAndInfiniteAreAccepted(t *testing.T) {
	onBus := &fakeBus{}
	body := frames(func(f *oona.Frame) {
		f.Metrics[0].Values = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0}
	})
	if w := post(newStage(t, onBus, nil), mediaAvro, body); w.Code != http.StatusOK {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
}

// What the bus refuses of several frames may be their batch: they are published one
// by one, in order. A frame that is too large by itself is named.
func TestFramesTooLargeTogether(t *testing.T) {
	large := func(f *oona.Frame) { manySeeds(900)(f); manyMetrics(8)(f) }
	for name, c := range map[string]struct {
		frames []func(*oona.Frame)
		code   int
		onBus  []int64 // sequences
		detail string
	}{
		"all fit":  {make([]func(*oona.Frame), 5), http.StatusOK, []int64{0, 1, 2, 3, 4}, ""},
		"one not":  {[]func(*oona.Frame){nil, large, nil}, http.StatusRequestEntityTooLarge, []int64{0, 2}, `"frame":1`},
		"just one": {[]func(*oona.Frame){large}, http.StatusRequestEntityTooLarge, nil, `"frame":0`},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := &topicBus{answer: func(_ string, messages []*message.Message) error {
				if len(messages) > 1 || len(messages[0].Payload) > 20_000 {
					return bus.ErrTooLarge
				}
				return nil
			}}
			s := newStage(t, onBus, nil)
			w := post(s, mediaAvro, frames(c.frames...))
			var sequences []int64
			for _, m := range onBus.on(s.cfg.Topic) {
				var f oona.Frame
				if _, err := new(avro.FrameDecoder).Decode(m.Payload, &f); err != nil {
					t.Fatal(err)
				}
				sequences = append(sequences, f.Sequence)
			}
			if w.Code != c.code || !slices.Equal(sequences, c.onBus) || !strings.Contains(w.Body.String(), c.detail) {
				t.Errorf("answer is %d %s; on the bus are %v", w.Code, w.Body, sequences)
			}
		})
	}
}

func TestPublisherFails(t *testing.T) {
	for name, c := range map[string]struct {
		err        error
		code       int
		reason     reason
		retryAfter string
	}{
		"bus down":  {errors.New("no brokers"), http.StatusServiceUnavailable, reasonPublish, "5"},
		"too large": {errors.Join(errors.New("send"), bus.ErrTooLarge), http.StatusRequestEntityTooLarge, reasonTooLarge, ""},
		"not large": {errors.New("record too large"), http.StatusServiceUnavailable, reasonPublish, "5"},
		"pinned":    {errors.Join(errors.New("send"), fmt.Errorf("%w: it had 3 and has 4", bus.ErrPartitions)), http.StatusServiceUnavailable, reasonPartitions, "60"},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := &fakeBus{answer: func(call int) error {
				if call == 0 || call < 3 && errors.Is(c.err, bus.ErrTooLarge) {
					return c.err
				}
				return nil
			}}
			s := newStage(t, onBus, nil)
			w := post(s, mediaAvro, frames(nil, nil))
			if w.Code != c.code || w.Header().Get("Retry-After") != c.retryAfter || !strings.Contains(w.Body.String(), `"urn:oona:problem:`+string(c.reason)+`"`) {
				t.Errorf("answer is %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if w := post(s, mediaAvro, frames(nil, nil)); w.Code != http.StatusOK {
				t.Errorf("the repeat is answered %d", w.Code)
			}
			if got, want := s.Counts(), (Counts{Requests: 2, Refused: 1, Frames: 2, Readings: 8, Unconfirmed: 2}); got != want {
				t.Errorf("counts are %+v, want %+v", got, want)
			}
		})
	}
}

// A bus that does not answer is 503 at the timeout, holds the slot until it
// does, and never makes a 200.
func TestPublisherHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		onBus := &fakeBus{answer: func(call int) error {
			if call == 0 {
				<-release
			}
			return nil
		}}
		s := newStage(t, onBus, func(c *Config) { c.MaxInFlight = 1 })
		began := time.Now()
		w := post(s, mediaAvro, frames(nil))
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || took != s.cfg.PublishTimeout || w.Header().Get("Retry-After") == "" {
			t.Errorf("answer is %d after %s: %s", w.Code, took, w.Body)
		}
		w = post(s, mediaAvro, frames(nil))
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("while the only slot is held the answer is %d %s", w.Code, w.Body)
		}
		close(release)
		synctest.Wait()
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("after the bus has answered: %d %s", w.Code, w.Body)
		}
		if calls, _ := onBus.published(); calls != 2 {
			t.Errorf("%d calls of Publish, want 2: a refused request is not published", calls)
		}
	})
}

// Records keep their bytes while a slow publisher holds them, whatever comes in
// meanwhile.
func TestRecordsOutliveTheirRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		onBus := &fakeBus{answer: func(call int) error {
			if call == 0 {
				<-release
			}
			return nil
		}}
		s := newStage(t, onBus, nil)
		first := frames(nil, nil)
		post(s, mediaAvro, first)
		for range 10 {
			post(s, mediaAvro, frames(func(f *oona.Frame) { f.Run = "xxxxxx" }, func(f *oona.Frame) { f.Run = "yyyyyy" }))
			post(s, mediaJSON, []byte(strings.ReplaceAll(goodJSON, "digits", "zzzzzz")))
		}
		_, messages := onBus.published()
		if got := slices.Concat(messages[0].Payload, messages[1].Payload); !bytes.Equal(got, first) {
			t.Error("the first request's records have changed")
		}
		close(release)
	})
}

func TestRunServesAndDrains(t *testing.T) {
	release, publishing := make(chan struct{}), make(chan struct{})
	onBus := &fakeBus{answer: func(call int) error {
		if call == 1 {
			close(publishing)
			<-release
		}
		return nil
	}}
	s := newStage(t, onBus, nil)
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
	inHand := make(chan int)
	go func() { inHand <- server.post(t, mediaAvro, frames(nil)) }()
	<-publishing
	server.cancel()
	for s.Ready() == nil { // ends once Run has seen the order
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-server.ended:
		t.Fatalf("Run ended with a request in hand: %v", err)
	default:
	}
	close(release)
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
