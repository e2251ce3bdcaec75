package export

import (
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// other is the label value of what is beyond a limit. A metric of this very name
// is merged there, too.
const other = rollups.Other

// Labels whose values are limited.
const (
	labelRun    = "run"
	labelLayer  = "layer"
	labelMetric = "metric"
)

// store keeps what is exposed of each layer. It reads no clock: the caller passes the time.
type store struct {
	cfg    Config
	folded func(label string) // is told of each rollup or metric merged under other

	mu      sync.Mutex
	layers  *rollups.Layers[layer]
	metrics map[string]int // series that use a metric's name, except other
}

func newStore(cfg Config, folded func(label string)) *store {
	l := &store{cfg: cfg, folded: folded, metrics: make(map[string]int)}
	l.layers = rollups.NewLayers(rollups.Limits{
		Runs: cfg.MaxRuns, Layers: cfg.MaxLayers, Total: cfg.MaxTotalLayers,
		SilentAfter: cfg.SilentAfter, EndedAfter: cfg.SilentAfter,
	}, l.release)
	return l
}

// fold takes a rollup that was not read before. If accumulate is false, the
// rollup is only shown as the layer's last window. fold returns false if the
// window ended so long ago that the layer counts as silent.
func (l *store) fold(r *oona.Rollup, accumulate bool, now time.Time) (shown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	y, beyond := l.layers.Of(r, now)
	switch {
	case y == nil:
		return false
	case beyond == rollups.BeyondRuns:
		l.folded(labelRun)
	case beyond == rollups.BeyondLayers:
		l.folded(labelLayer)
	}
	g := &y.Value.groups[r.Group]
	if accumulate {
		y.Value.totals.accumulate(r)
	}
	for i := range r.Metrics {
		s := l.series(g, r.Metrics[i].Name)
		if accumulate {
			s.accumulate(&r.Metrics[i])
		}
	}
	if !y.Merged {
		g.windows.Add(l.window(r, g), r.End, shownWindows)
	}
	return true
}

// series returns the series that the samples of a metric are added to.
func (l *store) series(g *layerGroup, metric string) *series {
	if s := g.series[metric]; s != nil && metric != other {
		return s
	}
	if metric == other || l.metrics[metric] == 0 && len(l.metrics) >= l.cfg.MaxMetrics {
		l.folded(labelMetric)
		metric = other
	}
	s := g.series[metric]
	if s == nil {
		if g.series == nil {
			g.series = make(map[string]*series)
		}
		s = new(series)
		g.series[metric] = s
		if metric != other {
			l.metrics[metric]++
		}
	}
	return s
}

// release frees the names of a layer's metrics for others.
func (l *store) release(y *rollups.Layer[layer]) {
	for g := range y.Value.groups {
		for metric := range y.Value.groups[g].series {
			if metric == other {
				continue
			}
			l.metrics[metric]--
			if l.metrics[metric] == 0 {
				delete(l.metrics, metric)
			}
		}
	}
}

// snapshot returns what is to be exposed at now, all of one moment.
func (l *store) snapshot(now time.Time) []layerSnapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]layerSnapshot, 0, l.layers.Len())
	for y := range l.layers.All(now) {
		out = append(out, snapshotOf(y))
	}
	return out
}
