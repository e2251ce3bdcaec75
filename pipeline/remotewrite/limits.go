package remotewrite

import (
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/rollups"
)

// limits bounds the values of labels that come from clients, of all partitions together.
type limits struct {
	maxMetrics int

	mu      sync.Mutex
	layers  *rollups.Layers[layer]
	metrics map[string]int // layers that use a metric's name
}

// layer is what is kept of a layer.
type layer struct {
	metrics map[string]struct{}
	ends    [len(groups)]oona.Micros // the greatest of its windows, by group
}

func newLimits(cfg Config) *limits {
	l := &limits{maxMetrics: cfg.MaxMetrics, metrics: make(map[string]int)}
	l.layers = rollups.NewLayers(rollups.Limits{
		Runs: cfg.MaxRuns, Layers: cfg.MaxLayers, Total: cfg.MaxTotalLayers, SilentAfter: cfg.SilentAfter,
	}, l.release)
	return l
}

// finding is what limits say of a rollup.
type finding struct {
	beyond  string // label of the limit that the rollup is beyond, or ""
	removed int    // metrics
	late    bool   // a window of its layer and group that was read before ended later, or with it
}

// apply removes from a rollup the metrics that are beyond their limit.
func (l *limits) apply(r *oona.Rollup, now time.Time) (f finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	y, limit := l.layers.Of(r, now)
	switch limit {
	case rollups.BeyondRuns:
		return finding{beyond: layerseries.Run}
	case rollups.BeyondLayers:
		return finding{beyond: layerseries.Layer}
	}
	end := &y.Value.ends[r.Group]
	f.late = r.End <= *end
	*end = max(*end, r.End)
	kept := r.Metrics[:0]
	for _, m := range r.Metrics {
		if l.admit(y, m.Name) {
			kept = append(kept, m)
		}
	}
	f.removed = len(r.Metrics) - len(kept)
	r.Metrics = kept
	return f
}

func (l *limits) admit(y *rollups.Layer[layer], metric string) bool {
	if _, known := y.Value.metrics[metric]; known {
		return true
	}
	if metric == rollups.Other || l.metrics[metric] == 0 && len(l.metrics) >= l.maxMetrics {
		return false
	}
	if y.Value.metrics == nil {
		y.Value.metrics = make(map[string]struct{})
	}
	y.Value.metrics[metric] = struct{}{}
	l.metrics[metric]++
	return true
}

// release frees the names of a layer's metrics for others.
func (l *limits) release(y *rollups.Layer[layer]) {
	for metric := range y.Value.metrics {
		l.metrics[metric]--
		if l.metrics[metric] == 0 {
			delete(l.metrics, metric)
		}
	}
}
