package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/outage"
)

// Ingest does not start if the store refuses it, but starts during an outage.
func TestProbeAtTheStart(t *testing.T) {
	disk := newStore(t)
	for name, c := range map[string]struct {
		err    error
		starts bool
		up     float64
	}{
		"well":       {nil, true, 1},
		"down":       {claimcheck.ErrUnavailable, true, 0},
		"full":       {claimcheck.ErrFull, true, 0},
		"slow":       {context.DeadlineExceeded, true, 0},
		"refused":    {claimcheck.ErrRefused, false, 0},
		"no spool":   {claimcheck.ErrSpool, false, 0},
		"full spool": {fmt.Errorf("%w: %w", claimcheck.ErrSpool, claimcheck.ErrFull), true, 0},
	} {
		store := disk.again()
		store.probe = func(context.Context) error { return c.err }
		s := newStageWithStore(t, newBus(t), store)
		err := s.ProbeStore(t.Context())
		if (err == nil) != c.starts || err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: error is %v", name, err)
		}
		if up := testutil.ToFloat64(s.store.gauge()); up != c.up {
			t.Errorf("%s: the store's state is %g, want %g", name, up, c.up)
		}
	}
	if err := newStage(t, newBus(t), nil).ProbeStore(t.Context()); err != nil {
		t.Errorf("without a store: %v", err)
	}
}

// The state of the store is a metric if there is a store.
func TestStoreUpIsAMetric(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Topic = "topic"
	for want := range 2 {
		registry := prometheus.NewRegistry()
		if want == 1 {
			cfg.Tensors = new(faultyStore)
		}
		if _, err := New(cfg, newBus(t), registry, newStage(t, newBus(t), nil).logger); err != nil {
			t.Fatal(err)
		}
		if n, err := testutil.GatherAndCount(registry, "oona_ingest_store_up"); err != nil || n != want {
			t.Errorf("%d series, error %v, want %d", n, err, want)
		}
	}
}

// A store that is down is probed until it works again, at the start and later. Frames
// are accepted during that time.
func TestStoreIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var down atomic.Bool
		var probes atomic.Int64
		fault := func(context.Context) error {
			if down.Load() {
				return claimcheck.ErrUnavailable
			}
			return nil
		}
		store.fault, store.probe = fault, func(ctx context.Context) error { probes.Add(1); return fault(ctx) }
		s := newStageWithStore(t, newBus(t), store)
		is := func(want bool, when string) {
			t.Helper()
			synctest.Wait()
			if up := s.store.up.Load() == 1; up != want {
				t.Errorf("%s the store is up: %v, want %v", when, up, want)
			}
			if note := s.StoreNote(); (note == "") != want || s.Ready() != nil || !want && !strings.Contains(note, claimcheck.ErrUnavailable.Error()) {
				t.Errorf("%s the note is %q, and ready %v", when, note, s.Ready())
			}
		}
		down.Store(true)
		if err := s.ProbeStore(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := s.StoreNote()
		_, end := serve(t, s)
		is(false, "while it is down")
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("a frame is answered %d", w.Code)
		}
		time.Sleep(10 * time.Minute)
		is(false, "while it is still down")
		if note := s.StoreNote(); note != first {
			t.Errorf("the note was %q and is %q", first, note)
		}
		if n := probes.Load(); n < 20 || n > 30 {
			t.Errorf("it was probed %d times in ten minutes", n)
		}
		down.Store(false)
		time.Sleep(longestProbe)
		is(true, "once it is back")
		probes.Store(0)
		time.Sleep(time.Hour)
		if n := probes.Load(); n != 0 {
			t.Errorf("a store that is well was probed %d times", n)
		}

		down.Store(true)
		if w := put(s, larger); w.Code != http.StatusServiceUnavailable {
			t.Errorf("a tensor is answered %d", w.Code)
		}
		is(false, "after it has failed")
		down.Store(false)
		time.Sleep(shortestProbe)
		is(true, "once it is back")
		end()
	})
}

// lines is a log that is read while it is written to.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// take returns the lines since the last call.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// That the store does not answer is logged when it begins, every ten minutes, when the reason changes, and
// when it is back. A line has the number of probes that were not logged.
func TestStoreIsNotLoggedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var fault atomic.Pointer[error]
		fault.Store(&claimcheck.ErrUnavailable)
		var probes atomic.Int64
		store.probe = func(context.Context) error { probes.Add(1); return *fault.Load() }
		s := newStageWithStore(t, newBus(t), store)
		log := new(lines)
		s.logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		_, end := serve(t, s)
		logged := func(when string, warnings, infos int) (text string) {
			t.Helper()
			synctest.Wait()
			text = log.take()
			if w, i := strings.Count(text, "level=WARN"), strings.Count(text, "level=INFO"); w != warnings || i != infos {
				t.Errorf("%s: %d warnings and %d others, want %d and %d: %s", when, w, i, warnings, infos, text)
			}
			return text
		}
		logged("at the start", 1, 1) // and that it accepts frames
		time.Sleep(outage.Again - time.Second)
		logged("within ten minutes", 0, 0)
		time.Sleep(longestProbe)
		text := logged("after ten minutes", 1, 0)
		if n := probes.Load(); n < 20 || !strings.Contains(text, fmt.Sprintf("suppressed=%d", n-2)) {
			t.Errorf("after %d probes: %s", n, text)
		}
		fault.Store(&claimcheck.ErrRefused)
		time.Sleep(longestProbe)
		logged("with another reason", 1, 0)
		fault.Store(new(error))
		time.Sleep(longestProbe)
		logged("when it is back", 0, 1)
		end()
	})
}
