package export

import (
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Reasons for which the stage is not ready, or ends.
var (
	ErrCatchingUp = errCatchingUp
	ErrLogEnded   = errLogEnded
)

// Judges returns how many layers have a judge.
func (s *Stage) Judges() int {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return len(s.store.judges.all)
}

// Registries registers each collector in a registry of its own, as a worker does.
type Registries struct {
	prometheus.Registerer // nil: only Register is used
	All                   []prometheus.Gatherer
}

// Register implements prometheus.Registerer.
func (r *Registries) Register(c prometheus.Collector) error {
	registry := prometheus.NewRegistry()
	r.All = append(r.All, registry)
	return registry.Register(c)
}

// AtItsEnd is a log that has been read.
type AtItsEnd struct{ bus.Reader }

// Ranges implements bus.Reader.
func (AtItsEnd) Ranges(string) []bus.Range { return []bus.Range{{}} }

// Unread is an answer that nobody reads.
type Unread struct {
	io.Writer
	Headers http.Header
}

// Header implements http.ResponseWriter.
func (u Unread) Header() http.Header { return u.Headers }

// WriteHeader implements http.ResponseWriter.
func (u Unread) WriteHeader(int) {}

// Ends returns the runs whose ends are kept, in order.
func (s *Stage) Ends() []oona.RunID {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return slices.Sorted(maps.Keys(s.store.ends.of))
}
