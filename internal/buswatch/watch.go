// Package buswatch asks the bus regularly whether it answers, where topics end, and whether a consumer
// group has members of another installation. Many workers continue while the bus is down, so their
// readiness does not show that it is down. The gauge and the note of a Watch do.
package buswatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/remedy"
)

// Interval is the time between two requests.
const Interval = 10 * time.Second

// Ends returns the offsets at which partitions begin and end. It is a part of bus.Admin.
type Ends interface {
	Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error)
}

// Watch asks a bus.
type Watch struct {
	ends   Ends
	topics []string
	found  func(map[string][]bus.Extent, time.Time)
	up     prometheus.Gauge
	logger *slog.Logger

	mu    sync.Mutex
	since time.Time // time of the first request without an answer; zero after an answer
	err   error     // error of the last request, or nil
}

// New returns a Watch that asks about topics. It calls found with each answer and the time
// of the request. found may be nil.
func New(ends Ends, topics []string, found func(map[string][]bus.Extent, time.Time), registerer prometheus.Registerer, logger *slog.Logger) (*Watch, error) {
	w := &Watch{ends: ends, topics: topics, found: found, logger: logger, up: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "oona_bus_up",
		Help: "1 if the bus answered the worker's last request for the end offsets of its topics, 0 if not. The worker sends such a request every ten seconds. Before the first one the value is 1, because a worker connects to the bus when it starts.",
	})}
	w.up.Set(1)
	if err := registerer.Register(w.up); err != nil {
		return nil, fmt.Errorf("register oona_bus_up: %w", err)
	}
	return w, nil
}

// Run asks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	for {
		w.ask(ctx)
		if !bus.Pause(ctx, Interval) {
			return nil
		}
	}
}

func (w *Watch) ask(ctx context.Context) {
	at := time.Now()
	extents, err := w.ends.Extents(ctx, w.topics...)
	err = remedy.Add(err)
	if ctx.Err() != nil {
		return
	}
	w.note(at, err)
	if err == nil && w.found != nil {
		w.found(extents, at)
	}
}

// note records an answer. It logs when the bus stops answering, and when it answers again.
func (w *Watch) note(at time.Time, err error) {
	w.mu.Lock()
	since := w.since
	w.err = err
	switch {
	case err == nil:
		w.since = time.Time{}
		w.up.Set(1)
	case since.IsZero():
		w.since = at
		w.up.Set(0)
	}
	w.mu.Unlock()
	switch {
	case err != nil && since.IsZero():
		w.logger.Warn("the bus does not answer", "err", err)
	case err == nil && !since.IsZero():
		w.logger.Info("the bus answers again", "since", since)
	}
}

// Note says since when the bus is down, and why. It is empty while the bus answers.
func (w *Watch) Note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return ""
	}
	return fmt.Sprintf("down since %s: %v", w.since.UTC().Format(time.RFC3339), w.err)
}
