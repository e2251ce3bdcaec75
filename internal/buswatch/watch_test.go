package buswatch_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/buswatch"
)

// flaky answers unless away is true.
type flaky struct {
	away  atomic.Bool
	asked atomic.Int64
}

func (f *flaky) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	f.asked.Add(1)
	if f.away.Load() {
		return nil, bus.ErrUnreachable
	}
	return map[string][]bus.Extent{topics[0]: {{Start: 1, End: 2}}}, nil
}

func TestBusGoesAwayAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends flaky
		var found atomic.Int64
		registry := prometheus.NewRegistry()
		w, err := buswatch.New(&ends, []string{"t"}, func(extents map[string][]bus.Extent, _ time.Time) {
			found.Add(extents["t"][0].End)
		}, registry, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		step := func(away bool, asked, answered int64, up float64) {
			t.Helper()
			ends.away.Store(away)
			if asked > 1 {
				time.Sleep(buswatch.Interval)
			}
			synctest.Wait()
			note := w.Note()
			if ends.asked.Load() != asked || found.Load() != 2*answered || value(t, registry) != up || (note == "") != (up == 1) || up == 0 && !strings.Contains(note, bus.ErrUnreachable.Error()) {
				t.Errorf("asked %d times, found %d, up %v, note %q", ends.asked.Load(), found.Load(), value(t, registry), note)
			}
		}
		step(false, 1, 1, 1)
		step(false, 2, 2, 1)
		step(true, 3, 2, 0)
		since := w.Note()
		step(true, 4, 2, 0)
		if w.Note() != since {
			t.Errorf("the note was %q and is %q", since, w.Note())
		}
		step(false, 5, 3, 1)
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func value(t *testing.T, from prometheus.Gatherer) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "oona_bus_up" {
		t.Fatalf("%v, %v", families, err)
	}
	return families[0].Metric[0].GetGauge().GetValue()
}
