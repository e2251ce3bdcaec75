package remotewrite_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
)

// window is the number of samples of a layer's window with one metric, in both groups.
const window = healthSamples + performanceSamples + 2*metricSamples

// A window that ends before an earlier one of its layer is refused, and nothing else of
// its request is lost, whether the receiver stores the others of a request or not.
func TestOutOfOrderWindow(t *testing.T) {
	for _, partial := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, to := newBus(t), newStorage()
			to.partial = partial
			in := newEmitter(t, b)
			e := start(t, b, to, nil)
			in.emit(0, "r", "a", 1, "loss")
			in.emit(0, "r", "b", 1, "loss")
			in.emit(0, "r", "a", 0, "loss", "new") // as of another timeline
			in.emit(0, "r", "b", 2, "loss")
			in.emit(0, "r", "a", 2, "loss")
			pass(5 * time.Second)
			if to.refusals == 0 {
				t.Fatal("nothing was refused")
			}
			if got, want := to.samples(), 4*window+2*metricSamples; got != want {
				t.Errorf("partial %t: %d samples are stored, want %d: those of the late window that have no later ones, too", partial, got, want)
			}
			e.expect(float64(window), "skipped_samples_total", "reason=out-of-order")
			e.expect(float64(window), "skipped_samples_total")
			if got := commits(t, b, topics.LayerHealth); got != 5 {
				t.Errorf("committed up to %d of 5", got)
			}
			if n := strings.Count(e.log.String(), "level=WARN"); n == 0 {
				t.Error("the log does not say that samples were refused")
			}
			e.end()
		})
	}
}

// Two timelines report the same layer, and their windows end at the same time: the first
// stands, and the second is counted.
func TestTwoTimelinesOfALayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		other := rollup(oona.Performance, "r", "a", 0)
		other.Timeline, other.Frames = "rank1", 77
		in.append(0, rollup(oona.Performance, "r", "a", 0))
		in.append(0, other)
		pass(5 * time.Second)
		if got := to.find(t, "__name__=kasmina_layer_window_frames"); len(got) != 1 || got[0].value != 5 {
			t.Errorf("frames %v, want those of the first rollup", got)
		}
		e.expect(1, "skipped_samples_total", "reason=duplicate")
		e.expect(1, "skipped_samples_total")
		e.end()
	})
}

// While the receiver does not answer, rollups wait in order, and nothing is skipped.
func TestReceiverAway(t *testing.T) {
	for name, fault := range map[string]func() (*http.Response, error){
		"no connection": func() (*http.Response, error) { return nil, errors.New("connection refused") },
		"503":           func() (*http.Response, error) { return respond(http.StatusServiceUnavailable, ""), nil },
		"500":           func() (*http.Response, error) { return respond(http.StatusInternalServerError, "out of disk"), nil },
		"429":           func() (*http.Response, error) { return respond(http.StatusTooManyRequests, "slow down"), nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			b, to := newBus(t), newStorage()
			faulty := &switched{next: to, fault: fault}
			in := newEmitter(t, b)
			e := start(t, b, faulty, nil)
			for n := range 100 {
				in.emit(0, "r", "a", n, "loss")
				pass(10 * time.Second)
			}
			if faulty.met() == 0 || to.samples() > 0 {
				t.Fatalf("%s: %d faults, %d samples stored", name, faulty.met(), to.samples())
			}
			if most := 2 * 1000 / 20; faulty.met() > most { // two partitions, pauses of 22 s and more at the end
				t.Errorf("%s: %d attempts in 1000 s, want at most %d", name, faulty.met(), most)
			}
			if got := commits(t, b, topics.LayerHealth); got != 0 {
				t.Errorf("%s: committed up to %d", name, got)
			}
			e.expect(200, "lag_records")
			if lag := e.value("lag_seconds", "topic="+topics.LayerHealth); lag < 990 || lag > 1010 {
				t.Errorf("%s: lag of %g s", name, lag)
			}
			e.expect(0, "refusing")
			faulty.set(nil)
			pass(time.Minute)
			if got := to.samples(); got != 100*window {
				t.Errorf("%s: %d samples are stored, want %d", name, got, 100*window)
			}
			e.expect(0, "skipped_samples_total")
			e.expect(0, "lag_records")
			e.expect(0, "lag_seconds")
			e.end()
		})
	}
}

// Retry-After is waited for, in both forms, and no longer than five minutes.
func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		after func(now time.Time) string
		wait  time.Duration
	}{
		{func(time.Time) string { return "90" }, 90 * time.Second},
		{func(now time.Time) string { return now.Add(2 * time.Minute).UTC().Format(http.TimeFormat) }, 2 * time.Minute},
		{func(time.Time) string { return "86400" }, 5 * time.Minute},
		{func(time.Time) string { return "99999999999999999999" }, 5 * time.Minute},
		{func(time.Time) string { return "-3600" }, 500 * time.Millisecond}, // it has no meaning
	} {
		synctest.Test(t, func(t *testing.T) {
			b, to := newBus(t), newStorage()
			in := newEmitter(t, b)
			var times []time.Time
			to.before = func(n int, _ *prompb.WriteRequest) *http.Response {
				times = append(times, time.Now())
				if n == 1 {
					return respond(http.StatusTooManyRequests, "", "Retry-After", test.after(time.Now()))
				}
				return nil
			}
			e := start(t, b, to, nil)
			in.append(0, rollup(oona.Health, "r", "a", 0))
			pass(10 * time.Minute)
			if len(times) != 2 || times[1].Sub(times[0]) < test.wait-time.Second || times[1].Sub(times[0]) > test.wait+time.Second {
				t.Errorf("requests at %v, want two with %s between them", times, test.wait)
			}
			e.end()
		})
	}
}

// A wrong token is an operator's fault: rollups wait, and are sent when it is mended.
func TestWrongCredentials(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMovedPermanently} {
		synctest.Test(t, func(t *testing.T) {
			b, to := newBus(t), newStorage()
			in := newEmitter(t, b)
			var token atomic.Value
			token.Store("wrong")
			faulty := &switched{next: to, fault: func() (*http.Response, error) { return respond(status, "no", "Location", "http://elsewhere/"), nil }}
			faulty.unless = func(request *http.Request) bool { return request.Header.Get("Authorization") == "Bearer right" }
			e := start(t, b, faulty, func(c *remotewrite.Config) {
				c.Authorization = func() string { return "Bearer " + token.Load().(string) }
			})
			in.emit(0, "r", "a", 0, "loss")
			pass(10 * time.Minute)
			if faulty.met() < 2*15 || faulty.met() > 2*30 {
				t.Errorf("%d: %d attempts of two partitions in ten minutes", status, faulty.met())
			}
			e.expect(1, "refusing")
			if !strings.Contains(e.log.String(), "level=ERROR") || !strings.Contains(e.Note(), "waiting") {
				t.Errorf("%d: the log is\n%s\nand the note %q", status, e.log, e.Note())
			}
			token.Store("right")
			pass(time.Minute)
			if got := to.samples(); got != window {
				t.Errorf("%d: %d samples are stored, want %d", status, got, window)
			}
			e.expect(0, "refusing")
			e.expect(0, "skipped_samples_total")
			e.end()
		})
	}
}

// A receiver that answers everything with 400 for no known reason is not a judge of
// samples: nothing is skipped.
func TestEverythingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		faulty := &switched{next: to, fault: func() (*http.Response, error) { return respond(http.StatusBadRequest, "tenant unknown"), nil }}
		e := start(t, b, faulty, nil)
		in.emit(0, "r", "a", 0, "loss")
		pass(time.Hour)
		if faulty.met() < 100 {
			t.Errorf("%d faults", faulty.met())
		}
		e.expect(0, "skipped_samples_total")
		e.expect(1, "refusing")
		faulty.set(nil)
		pass(time.Minute)
		if got := to.samples(); got != window {
			t.Errorf("%d samples are stored, want %d", got, window)
		}
		e.expect(0, "skipped_samples_total")
		e.end()
	})
}

// Such a receiver gets a few requests every half a minute, and not each sample of a large
// batch alone. Once it takes samples, those that it still refuses are found among the others.
func TestEverythingOfALargeBatchIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		faulty := &switched{next: to, fault: func() (*http.Response, error) { return respond(http.StatusBadRequest, "tenant unknown"), nil }}
		e := start(t, b, faulty, nil)
		layers := []oona.LayerID{"bad", "a", "b", "c", "d", "e", "f"}
		for _, layer := range layers {
			in.emit(0, "r", layer, 0, "a", "b", "loss")
		}
		pass(time.Minute)
		before := faulty.met()
		pass(time.Hour)
		if n := faulty.met() - before; n < 2*120 || n > 2*170*8 { // two partitions, pauses of 22 to 38 s
			t.Errorf("%d requests in an hour", n)
		}
		e.expect(0, "skipped_samples_total")
		to.set(func(_ int, request *prompb.WriteRequest) *http.Response {
			for _, s := range request.Timeseries {
				if strings.Contains(labelsOf(s), "layer=bad,") {
					return respond(http.StatusBadRequest, "label value too short")
				}
			}
			return nil
		})
		faulty.set(nil)
		pass(2 * time.Minute)
		const each = healthSamples + performanceSamples + 2*3*metricSamples
		if got, want := to.samples(), (len(layers)-1)*each; got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		e.expect(float64(each), "skipped_samples_total", "reason=invalid")
		e.expect(0, "lag_records")
		e.end()
	})
}

// Samples that are refused for a reason that is not known are skipped once the receiver
// takes others, wherever they are in a batch, and even if a batch has no others.
func TestSamplesThatAreInvalid(t *testing.T) {
	for _, layers := range [][]oona.LayerID{{"bad", "a", "b"}, {"a", "bad", "b"}, {"a", "b", "bad"}, {"bad"}} {
		synctest.Test(t, func(t *testing.T) {
			b, to := newBus(t), newStorage()
			var refused atomic.Int64
			to.before = func(_ int, request *prompb.WriteRequest) *http.Response {
				for _, s := range request.Timeseries {
					if strings.Contains(labelsOf(s), "layer=bad,") {
						refused.Add(1)
						return respond(http.StatusBadRequest, "label value too short")
					}
				}
				return nil
			}
			in := newEmitter(t, b)
			e := start(t, b, to, nil)
			for _, layer := range layers {
				in.emit(0, "r", layer, 0, "loss")
			}
			pass(time.Minute)
			if refused.Load() == 0 {
				t.Fatal("nothing was refused")
			}
			if len(layers) == 1 { // nothing else is in its partition
				e.expect(0, "skipped_samples_total")
				in.emit(1, "r", "a", 0, "loss")
				in.emit(1, "r", "b", 0, "loss")
				pass(2 * time.Minute)
			}
			if got := to.samples(); got != 2*window {
				t.Errorf("%v: %d samples are stored, want %d", layers, got, 2*window)
			}
			e.expect(float64(window), "skipped_samples_total", "reason=invalid")
			e.expect(float64(window), "skipped_samples_total")
			e.expect(0, "lag_records")
			e.end()
		})
	}
}

// Prometheus 2.42 answers with 500 to samples that are older than its window for samples out
// of order. They are skipped, and those of other layers are stored.
func TestTooOldSamplesWith500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		to.before = func(_ int, request *prompb.WriteRequest) *http.Response {
			for _, s := range request.Timeseries {
				if strings.Contains(labelsOf(s), "layer=old,") {
					return respond(http.StatusInternalServerError, "too old sample")
				}
			}
			return nil
		}
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		for _, layer := range []oona.LayerID{"a", "old", "b"} {
			in.emit(0, "r", layer, 0, "loss")
		}
		pass(2 * time.Minute)
		if got := to.samples(); got != 2*window {
			t.Errorf("%d samples are stored, want %d", got, 2*window)
		}
		e.expect(float64(window), "skipped_samples_total", "reason=too-old")
		e.expect(float64(window), "skipped_samples_total")
		e.expect(0, "lag_records")
		e.end()
	})
}

// A receiver without native histograms refuses them with 500, as Prometheus 2. Everything
// else is stored.
func TestNoNativeHistograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		to.before = func(_ int, request *prompb.WriteRequest) *http.Response {
			for _, s := range request.Timeseries {
				if len(s.Histograms) > 0 {
					return respond(http.StatusInternalServerError, "native histograms are disabled")
				}
			}
			return nil
		}
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		in.emit(0, "r", "a", 0, "loss")
		in.emit(0, "r", "a", 1, "loss")
		pass(time.Minute)
		e.expect(4, "skipped_samples_total", "reason=histograms") // sent or not
		in.emit(0, "r", "a", 2, "loss")
		pass(time.Minute)
		if got, want := to.samples(), 3*window-6; got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		e.expect(6, "skipped_samples_total")
		to.set(nil)
		pass(10 * time.Minute)
		in.emit(0, "r", "a", 3, "loss")
		pass(time.Minute)
		if got, want := to.samples(), 4*window-6; got != want {
			t.Errorf("after ten minutes %d samples are stored, want %d", got, want)
		}
		e.end()
	})
}

// A request that is too large for the receiver is divided.
func TestRequestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		tooLarge := 0
		to.before = func(_ int, request *prompb.WriteRequest) *http.Response {
			for i, s := range request.Timeseries {
				if i >= 7 || len(s.Histograms) > 0 {
					tooLarge++
					return respond(http.StatusRequestEntityTooLarge, "")
				}
			}
			return nil
		}
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		for n := range 5 {
			in.emit(0, "r", "a", n, "loss")
		}
		pass(time.Minute)
		if tooLarge == 0 {
			t.Fatal("no request was too large")
		}
		if got, want := to.samples(), 5*window-10; got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		e.expect(10, "skipped_samples_total", "reason=too-large")
		e.end()
	})
}
