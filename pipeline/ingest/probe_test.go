package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona/claimcheck"
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
