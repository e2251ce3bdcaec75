package loadgen

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// digits is the recording in the repository.
func digits(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/digits.avro")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// arrival is a frame that the ingest of a test has received.
type arrival struct {
	frame oona.Frame
	at    time.Time
}

// told is an event that the ingest of a test has received.
type told struct {
	oona.SeedEvent
	at time.Time
}

// ingest is a fake ingest. It decodes each request, and keeps the frames if it answers
// with 200.
type ingest struct {
	mu       sync.Mutex
	arrivals []arrival
	events   []told
	ends     []oona.RunEnd
	requests int
	largest  int // bytes of a request
	most     int // frames of a request

	// answer returns the answer to request n, from 0, and whether its frames are
	// accepted. If it is nil, all requests are accepted.
	answer func(request int) (response *http.Response, err error, taken bool)
}

// RoundTrip makes an ingest the transport of a client, so that tests need no network
// and can use fake time.
func (in *ingest) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	n := in.requests
	in.requests++
	in.mu.Unlock()
	response, err, taken := answered(http.StatusOK, ""), error(nil), true
	if in.answer != nil {
		response, err, taken = in.answer(n) // not under the lock: it may sleep
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if taken {
		take := in.take
		if request.URL.Path == eventsPath {
			take = in.hear
		}
		if fault := take(body); fault != nil {
			return nil, fault
		}
	}
	return response, err
}

func (in *ingest) take(body []byte) error {
	var decoder avro.FrameDecoder
	in.largest = max(in.largest, len(body))
	frames := 0
	for len(body) > 0 {
		var f oona.Frame
		rest, err := decoder.Decode(body, &f)
		if err != nil {
			return err
		}
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			return err
		}
		// The decoder reuses its buffers, but tests keep the frames.
		f.Seeds = append([]oona.SeedID(nil), f.Seeds...)
		f.States = append([]oona.State(nil), f.States...)
		in.arrivals = append(in.arrivals, arrival{f, time.Now()})
		body = rest
		frames++
	}
	in.most = max(in.most, frames)
	return nil
}

func (in *ingest) hear(body []byte) error {
	return avro.DecodeEvents(body, func(e *oona.SeedEvent) error {
		in.events = append(in.events, told{*e, time.Now()})
		return e.Validate()
	}, func(e *oona.RunEnd) error {
		in.ends = append(in.ends, *e)
		return e.Validate()
	})
}

func answered(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func testConfig(in *ingest) Config {
	cfg := DefaultConfig()
	cfg.URL = "http://ingest.test/"
	cfg.Client = &http.Client{Transport: in}
	cfg.Logger = slog.New(slog.DiscardHandler)
	return cfg
}

func run(t *testing.T, cfg Config) Result {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// recordedFrames reads the frames of the recording and counts its events.
func recordedFrames(t *testing.T, data []byte) (frames []*oona.Frame, events int64) {
	t.Helper()
	reader, err := avro.NewRecordingReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := reader.Next()
		if err == io.EOF {
			return frames, events
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Event != nil {
			events++
			continue
		}
		frames = append(frames, entry.Frame)
	}
}

type identity struct {
	producer oona.ProducerID
	sequence int64
}

func TestRecordingAtSpeeds(t *testing.T) {
	data := digits(t)
	original, events := recordedFrames(t, data)
	byIdentity := make(map[identity]*oona.Frame)
	first, last := original[0].ObservedAt, original[0].ObservedAt
	for _, f := range original {
		byIdentity[identity{f.Producer, f.Sequence}] = f
		first, last = min(first, f.ObservedAt), max(last, f.ObservedAt)
	}
	for _, speed := range []float64{1, 10} {
		synctest.Test(t, func(t *testing.T) {
			in := &ingest{}
			cfg := testConfig(in)
			cfg.Speed, cfg.Recording = speed, bytes.NewReader(data)
			start := oona.MicrosOf(time.Now())
			result := run(t, cfg)

			if n := int64(len(original)); result.Sent != n || result.Acknowledged != n || int64(len(in.arrivals)) != n {
				t.Errorf("speed %v: %d frames recorded, %+v, %d arrived", speed, n, result.Counts, len(in.arrivals))
			}
			if result.Events != events || result.Refused != 0 || result.Retries != 0 {
				t.Errorf("speed %v: %+v; %d events recorded", speed, result.Counts, events)
			}
			length := time.Duration(float64(last-first)/speed) * time.Microsecond
			if d := result.Elapsed - length; d.Abs() > time.Millisecond {
				t.Errorf("speed %v: took %v, want %v", speed, result.Elapsed, length)
			}
			for _, a := range in.arrivals {
				f, want := a.frame, byIdentity[identity{a.frame.Producer, a.frame.Sequence}]
				shifted := start + oona.Micros(float64(want.ObservedAt-first)/speed)
				if f.ObservedAt != shifted {
					t.Fatalf("speed %v: frame %d of %s is at %d, want %d", speed, f.Sequence, f.Producer, f.ObservedAt, shifted)
				}
				if now := oona.MicrosOf(a.at); f.ObservedAt > now {
					t.Fatalf("speed %v: frame %d of %s came %d µs before its time", speed, f.Sequence, f.Producer, f.ObservedAt-now)
				}
				if f.Run != result.Run || f.Epoch != start || f.Layer != want.Layer || f.Step != want.Step || len(f.Tensors) != len(want.Tensors) {
					t.Fatalf("speed %v: frame differs: %+v", speed, f)
				}
			}
			inOrder(t, in.arrivals)
		})
	}
}

// TestEvents: the events of a recording are sent at their times, those of a seed in order,
// with the run of the frames, and then its end; without being told to, none is sent.
func TestEvents(t *testing.T) {
	data := digits(t)
	_, recorded := recordedFrames(t, data)
	for _, speed := range []float64{1, 10, MaxSpeed} {
		synctest.Test(t, func(t *testing.T) {
			in := &ingest{}
			cfg := testConfig(in)
			cfg.Speed, cfg.Recording, cfg.Events = speed, bytes.NewReader(data), true
			result := run(t, cfg)
			if n := int64(len(in.events)); n != recorded || result.Events != n || result.EventsSent != n || result.EventsAcknowledged != n {
				t.Errorf("speed %v: %d events recorded, %d arrived, %+v", speed, recorded, n, result.Counts)
			}
			if len(in.ends) != 1 || in.ends[0].Run != result.Run || in.ends[0].Outcome != oona.RunCompleted || result.Ended != 1 {
				t.Errorf("speed %v: the run has the ends %+v, %+v", speed, in.ends, result.Counts)
			}
			next := make(map[string]int64)
			for _, e := range in.events {
				key := string(oona.SeedKey(e.Run, e.Layer, e.Seed))
				if e.Run != result.Run || e.Sequence != next[key] || e.At > oona.MicrosOf(e.at) || oona.MicrosOf(e.at)-e.At > 1_000_000 {
					t.Fatalf("speed %v: %+v came at %v, when %d was next", speed, e.SeedEvent, e.at, next[key])
				}
				next[key]++
			}
		})
	}
}

// inOrder checks that each producer's frames count from 0 without gaps.
func inOrder(t *testing.T, arrivals []arrival) {
	t.Helper()
	next := make(map[oona.ProducerID]int64)
	for _, a := range arrivals {
		if a.frame.Sequence != next[a.frame.Producer] {
			t.Fatalf("%s: frame %d came when %d was next", a.frame.Producer, a.frame.Sequence, next[a.frame.Producer])
		}
		next[a.frame.Producer]++
	}
}

func TestMaxSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{}
		in.answer = func(int) (*http.Response, error, bool) {
			time.Sleep(time.Millisecond) // so that the time of sending changes
			return answered(http.StatusAccepted, ""), nil, true
		}
		cfg := testConfig(in)
		cfg.Speed, cfg.Recording = MaxSpeed, bytes.NewReader(digits(t))
		cfg.BatchFrames = 10
		result := run(t, cfg)
		if result.Acknowledged != int64(len(in.arrivals)) || result.Elapsed > 5*time.Second {
			t.Errorf("%+v, %d arrived", result, len(in.arrivals))
		}
		inOrder(t, in.arrivals)
		last := make(map[oona.ProducerID]oona.Micros)
		for _, a := range in.arrivals {
			if a.frame.ObservedAt > oona.MicrosOf(a.at) || a.frame.ObservedAt < last[a.frame.Producer] {
				t.Fatalf("frame %d at %d, after %d, arrived at %d", a.frame.Sequence, a.frame.ObservedAt, last[a.frame.Producer], oona.MicrosOf(a.at))
			}
			last[a.frame.Producer] = a.frame.ObservedAt
		}
		for producer, at := range last {
			if first := in.arrivals[0].frame.ObservedAt; at == first {
				t.Errorf("%s: the last frame has the time of the first", producer)
			}
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	for _, bounds := range []struct{ bytes, frames int }{{20_000, 1_000}, {1 << 20, 3}, {1, 1_000}} {
		in := &ingest{}
		cfg := testConfig(in)
		cfg.Speed = MaxSpeed
		cfg.Synthetic = Synthetic{Layers: 3, Seeds: 200, Rate: 1, Producers: 1, Frames: 50}
		cfg.BatchBytes, cfg.BatchFrames = bounds.bytes, bounds.frames
		result := run(t, cfg)
		if result.Acknowledged != 50 || in.most > bounds.frames {
			t.Errorf("%+v: %+v, %d frames in a request", bounds, result.Counts, in.most)
		}
		if in.largest > bounds.bytes && in.most > 1 {
			t.Errorf("%+v: a request of %d bytes and %d frames", bounds, in.largest, in.most)
		}
		if bounds.bytes == 20_000 && in.most != 2 {
			t.Errorf("%+v: %d frames in a request: two of %d bytes fit", bounds, in.most, in.largest/2)
		}
		inOrder(t, in.arrivals)
	}
}

func TestWholeRequestsAreAnsweredWhenStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{}
		in.answer = func(int) (*http.Response, error, bool) {
			time.Sleep(300 * time.Millisecond)
			return answered(http.StatusOK, ""), nil, true
		}
		cfg := testConfig(in)
		cfg.Synthetic = Synthetic{Layers: 2, Seeds: 10, Rate: 100, Producers: 2}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+50*time.Millisecond)
		defer cancel()
		result, err := p.Run(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline's", err)
		}
		if result.Unanswered() != 0 || result.Acknowledged != int64(len(in.arrivals)) || result.Acknowledged < 900 {
			t.Errorf("%+v, %d arrived", result.Counts, len(in.arrivals))
		}
	})
}

func TestBehindIsNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		in := &ingest{}
		in.answer = func(int) (*http.Response, error, bool) {
			time.Sleep(3 * time.Second)
			return answered(http.StatusOK, ""), nil, true
		}
		cfg := testConfig(in)
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		cfg.Synthetic = Synthetic{Layers: 1, Seeds: 1, Rate: 10, Producers: 1, Frames: 100}
		result := run(t, cfg)
		if result.Behind < 2*time.Second || result.Behind > 3*time.Second {
			t.Errorf("behind by %v, want just below 3s", result.Behind)
		}
		if n := strings.Count(logged.String(), "lower the speed or the rate"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, &logged)
		}
	})
}

func TestConfigFaults(t *testing.T) {
	for _, test := range []struct {
		name, want string
		change     func(*Config)
	}{
		{"no URL", "URL", func(c *Config) { c.URL = "" }},
		{"negative speed", "speed", func(c *Config) { c.Speed = -1 }},
		{"no batch", "batch", func(c *Config) { c.BatchFrames = 0 }},
		{"no delivery timeout", "timeout", func(c *Config) { c.DeliveryTimeout = 0 }},
		{"bad run", "run", func(c *Config) { c.Run = "a b" }},
		{"no load", "layers", func(c *Config) { c.Synthetic = Synthetic{} }},
	} {
		cfg := testConfig(&ingest{})
		cfg.Synthetic = DefaultSynthetic
		test.change(&cfg)
		_, err := New(cfg)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != test.want {
			t.Errorf("%s: error %v, want one of %s", test.name, err, test.want)
		}
	}
}

func TestParseSpeed(t *testing.T) {
	for text, want := range map[string]float64{"1": 1, "10": 10, "0.5": 0.5, "max": MaxSpeed} {
		if got, err := ParseSpeed(text); err != nil || got != want {
			t.Errorf("ParseSpeed(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "fast", "NaN", "Inf"} {
		if got, err := ParseSpeed(text); err == nil {
			t.Errorf("ParseSpeed(%q) = %v, want an error", text, got)
		}
	}
}
