package demo

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/watch"
)

// After a signal, the demo does not wait with all its patience for what is on its way: here for
// windows that stay open.
func TestSignalEndsTheWait(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), hopeless)
	defer cancel()
	cfg := testConfig(nil)
	cfg.Idle, cfg.Synthetic = time.Hour, "layers=2,seeds=10,rate=50"
	s := startLoaded(t, ctx, cfg, io.Discard)
	s.patience = time.Hour
	asked, signal := context.WithCancel(ctx)
	defer signal()
	s.asked, s.grace = asked.Done(), 0
	go func() {
		for s.aggregate.Counts().OpenWindows == 0 && bus.Pause(ctx, pollInterval) {
		}
		signal()
	}()
	report, err := s.play(asked, cfg, watch.Screen{Out: io.Discard})
	s.grace = cfg.Grace
	if err := errors.Join(err, s.stop()); err != nil {
		t.Fatal(err)
	}
	if report.OpenWindows == 0 {
		t.Error("all windows are closed, so there was nothing to wait for")
	}
}

// A signal while the services start ends the demo.
func TestSignalBeforeTheServicesAreReady(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(t.Context())
	signal()
	if report, err := Run(ctx, testConfig(nil), watch.Screen{Out: io.Discard}, discard()); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", report, err)
	}
}
