package loadgen

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
)

// small is a load of one producer.
var small = Synthetic{Layers: 2, Seeds: 5, Rate: 1_000, Producers: 1, Frames: 20}

func TestRetries(t *testing.T) {
	unavailable := func(header, value string) *http.Response {
		r := answered(http.StatusServiceUnavailable, `{"title":"The bus is down","detail":"no broker answers"}`)
		r.Header.Set(header, value)
		return r
	}
	for _, test := range []struct {
		name  string
		first func() (*http.Response, error, bool) // answers the first request
		wait  time.Duration                        // the least time until the second request
		most  time.Duration
	}{
		{"503 without a time", func() (*http.Response, error, bool) { return unavailable("X", ""), nil, false }, firstPause / 2, firstPause * 3 / 2},
		{"503 with seconds", func() (*http.Response, error, bool) { return unavailable("Retry-After", "7"), nil, false }, 7 * time.Second, 7 * time.Second},
		{"503 with a date", func() (*http.Response, error, bool) {
			return unavailable("Retry-After", time.Now().Add(9*time.Second).UTC().Format(http.TimeFormat)), nil, false
		}, 8 * time.Second, 9 * time.Second},
		{"503 with an hour", func() (*http.Response, error, bool) { return unavailable("Retry-After", "3600"), nil, false }, longestWait, longestWait},
		{"429", func() (*http.Response, error, bool) {
			return answered(http.StatusTooManyRequests, "slow down"), nil, false
		}, firstPause / 2, firstPause * 3 / 2},
		{"taken, then reset", func() (*http.Response, error, bool) { return nil, errors.New("connection reset by peer"), true }, firstPause / 2, firstPause * 3 / 2},
		{"taken, then cut off in the answer", func() (*http.Response, error, bool) {
			r := answered(http.StatusBadGateway, "")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("half"), cutOff{}))
			return r, nil, true
		}, firstPause / 2, firstPause * 3 / 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				in := &ingest{}
				in.answer = func(n int) (*http.Response, error, bool) {
					at = append(at, time.Now())
					if n == 0 {
						return test.first()
					}
					return answered(http.StatusOK, ""), nil, true
				}
				cfg := testConfig(in)
				cfg.Speed, cfg.Synthetic, cfg.BatchFrames = MaxSpeed, small, 10
				result := run(t, cfg)
				if wait := at[1].Sub(at[0]); wait < test.wait || wait > test.most {
					t.Errorf("waited %v, want %v to %v", wait, test.wait, test.most)
				}
				if result.Sent != 20 || result.Acknowledged != 20 || result.Retries != 1 || result.Readings != 100 || len(at) != 3 {
					t.Errorf("%+v after %d requests", result.Counts, len(at))
				}
				foldedOnce(t, in.arrivals, 20)
			})
		})
	}
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// foldedOnce checks that the arrivals are n different frames, and that repeats of a frame
// are equal to it.
func foldedOnce(t *testing.T, arrivals []arrival, n int) {
	t.Helper()
	type whole struct {
		identity
		epoch, observed oona.Micros
		layer           oona.LayerID
	}
	frames := make(map[identity]whole)
	for _, a := range arrivals {
		f := a.frame
		id := identity{f.Producer, f.Sequence}
		w := whole{id, f.Epoch, f.ObservedAt, f.Layer}
		if before, repeat := frames[id]; repeat && before != w {
			t.Errorf("a repeat differs: %+v, before %+v", w, before)
		}
		frames[id] = w
	}
	if len(frames) != n {
		t.Errorf("%d frames, want %d", len(frames), n)
	}
}

// If a server reads the body and closes the connection without an answer, the same bytes
// are sent again over another connection.
func TestDroppedConnection(t *testing.T) {
	var bodies [][]byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, body)
		if len(bodies) == 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	cfg := testConfig(nil)
	cfg.URL, cfg.Client = server.URL, nil
	cfg.Speed, cfg.Synthetic = MaxSpeed, small
	result := run(t, cfg)
	if len(bodies) != 2 || !bytes.Equal(bodies[0], bodies[1]) {
		t.Errorf("%d requests, want two that are the same", len(bodies))
	}
	if result.Acknowledged != 20 || result.Retries != 1 || result.Bytes != int64(2*len(bodies[0])) {
		t.Errorf("%+v", result.Counts)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		status        int
		body          string
		title, detail string
	}{
		{http.StatusBadRequest, `{"type":"about:blank","title":"Bad frame","detail":"frame 3: states[7]: is ordinal 99"}`, "Bad frame", "frame 3: states[7]: is ordinal 99"},
		{http.StatusRequestEntityTooLarge, `{"title":"Too large"}`, "Too large", ""},
		{http.StatusNotFound, "404 page not found\n", "Not Found", "404 page not found"},
		{http.StatusUnauthorized, "", "Unauthorized", ""},
	} {
		in := &ingest{}
		in.answer = func(n int) (*http.Response, error, bool) {
			if n == 1 {
				return answered(test.status, test.body), nil, false
			}
			return answered(http.StatusOK, ""), nil, true
		}
		cfg := testConfig(in)
		cfg.Speed, cfg.Synthetic, cfg.BatchFrames = MaxSpeed, small, 5
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		result, err := p.Run(t.Context())
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || refusal.Status != test.status || refusal.Title != test.title || refusal.Detail != test.detail {
			t.Errorf("%d: error %v, want %q, %q", test.status, err, test.title, test.detail)
		}
		if result.Acknowledged != 5 || result.Refused != 5 || result.Sent != 10 || result.Retries != 0 || result.Unanswered() != 0 || in.requests != 2 {
			t.Errorf("%d: %+v after %d requests", test.status, result.Counts, in.requests)
		}
	}
}

// Each attempt of a request has the time at which that attempt was sent.
func TestEachAttemptSaysItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{answer: func(request int) (*http.Response, error, bool) {
			return nil, errors.New("connection refused"), false
		}}
		cfg := testConfig(in)
		times := &timesOf{RoundTripper: in, t: t}
		cfg.Client = &http.Client{Transport: times}
		cfg.Speed, cfg.Synthetic, cfg.DeliveryTimeout = MaxSpeed, small, 10*time.Second
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Run(t.Context()); err == nil || times.n.Load() < 4 {
			t.Errorf("%d attempts, %v", times.n.Load(), err)
		}
	})
}

// timesOf returns the sending times of requests. It fails if one has no time.
type timesOf struct {
	http.RoundTripper
	t *testing.T
	n atomic.Int64
}

func (o *timesOf) RoundTrip(request *http.Request) (*http.Response, error) {
	o.n.Add(1)
	if got, want := request.Header.Get("Oona-Sent-At"), strconv.FormatInt(time.Now().UnixMicro(), 10); got != want {
		o.t.Errorf("a request is sent at %s, not %s", got, want)
	}
	return o.RoundTripper.RoundTrip(request)
}

func TestDeliveryTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{}
		in.answer = func(int) (*http.Response, error, bool) { return nil, syscall.ECONNREFUSED, false }
		cfg := testConfig(in)
		cfg.Speed, cfg.Synthetic, cfg.DeliveryTimeout = MaxSpeed, small, 30*time.Second
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		result, err := p.Run(t.Context())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want the cause in it", err)
		}
		if result.Unanswered() != 20 || result.Elapsed > 30*time.Second || result.Elapsed < 20*time.Second {
			t.Errorf("%+v", result)
		}
	})
}

// A path that fails does not delay the others.
func TestProducersAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{}
		slow := &slowFor{ingest: in, producer: "synthetic-0", wait: 5 * time.Second}
		cfg := testConfig(in)
		cfg.Client = &http.Client{Transport: slow}
		cfg.Logger = slog.New(slog.DiscardHandler)
		cfg.Synthetic = Synthetic{Layers: 2, Seeds: 1, Rate: 20, Producers: 2, Frames: 40}
		run(t, cfg)
		for _, a := range in.arrivals {
			delay := oona.MicrosOf(a.at) - a.frame.ObservedAt
			if a.frame.Producer == "synthetic-1" && delay > 1 {
				t.Errorf("frame %d of the quick producer came %d µs late", a.frame.Sequence, delay)
			}
		}
		if !slow.fired.Load() {
			t.Error("the slow producer was not held up")
		}
	})
}

type slowFor struct {
	*ingest
	producer string
	wait     time.Duration
	fired    atomic.Bool
}

func (s *slowFor) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(body, []byte(s.producer)) {
		s.fired.Store(true)
		time.Sleep(s.wait)
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	return s.ingest.RoundTrip(request)
}
