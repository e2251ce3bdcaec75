package export

import (
	"sync"
	"time"

	"github.com/morphogenetic/oona"
)

// other is the label value under which is merged what is beyond a cap. A run,
// layer or metric of that very name is merged there too.
const other = "other"

// Labels whose values are capped.
const (
	labelRun    = "run"
	labelLayer  = "layer"
	labelMetric = "metric"
)

// store keeps what is exposed of each layer. Its time is the caller's.
type store struct {
	cfg    Config
	folded func(label string) // is told of each rollup or metric merged under other

	mu      sync.Mutex
	runs    map[oona.RunID]map[oona.LayerID]*layer
	layers  int            // of all runs; those that merge others apart
	metrics map[string]int // series that use a metric's name; other apart
	sweepAt time.Time
}

func newStore(cfg Config, folded func(label string)) *store {
	return &store{
		cfg:     cfg,
		folded:  folded,
		runs:    make(map[oona.RunID]map[oona.LayerID]*layer),
		metrics: make(map[string]int),
	}
}

// fold takes a rollup in that was not taken in before. Where accumulate is
// false it only stands for the layer's last window. It returns false where the
// window ended so long ago that the layer counts as silent.
func (l *store) fold(r *oona.Rollup, accumulate bool, now time.Time) (shown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.sweepAt) {
		l.sweep(now)
	}
	old := l.silent(r.End.Time(), now)
	if old && l.runs[r.Run][r.Layer] == nil {
		return false
	}
	y := l.layer(r.Run, r.Layer, now)
	y.seen = now
	y.end = max(y.end, r.End)
	g := &y.groups[r.Group]
	if accumulate {
		y.accumulate(r)
	}
	for i := range r.Metrics {
		s := l.series(g, r.Metrics[i].Name)
		if accumulate {
			s.accumulate(&r.Metrics[i])
		}
	}
	if !y.merged && (g.last == nil || r.End >= g.last.end) {
		g.last = l.window(r, g)
	}
	return true
}

func (l *store) silent(since, now time.Time) bool { return now.Sub(since) > l.cfg.SilentAfter }

// layer returns the layer that a rollup of run and id belongs to: its own, or
// one that merges what is beyond a cap.
func (l *store) layer(run oona.RunID, id oona.LayerID, now time.Time) *layer {
	layers := l.runs[run]
	switch {
	case run == other || layers == nil && full(l.runs, other, l.cfg.MaxRuns):
		l.folded(labelRun)
		run, id = other, other
	case id == other || layers[id] == nil && (l.layers >= l.cfg.MaxTotalLayers || full(layers, other, l.cfg.MaxLayers)):
		l.folded(labelLayer)
		id = other
	}
	if l.runs[run] == nil {
		l.runs[run] = make(map[oona.LayerID]*layer)
	}
	y := l.runs[run][id]
	if y == nil {
		y = &layer{run: run, id: id, merged: id == other, created: now}
		for g := range y.groups {
			y.groups[g].series = make(map[string]*series)
		}
		l.runs[run][id] = y
		if !y.merged {
			l.layers++
		}
	}
	return y
}

// series returns the accumulation that the samples of a metric belong to.
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
		s = new(series)
		g.series[metric] = s
		if metric != other {
			l.metrics[metric]++
		}
	}
	return s
}

// full reports whether as many values as are allowed have a place of their own.
func full[K comparable, V any](places map[K]V, merged K, limit int) bool {
	n := len(places)
	if _, ok := places[merged]; ok {
		n--
	}
	return n >= limit
}

// sweep forgets silent layers, and so frees their places. Fold does so only now
// and then, as the walk is over all layers.
func (l *store) sweep(now time.Time) {
	l.sweepAt = now.Add(l.cfg.SilentAfter / 16)
	for run, layers := range l.runs {
		for id, y := range layers {
			if l.silent(y.seen, now) || l.silent(y.end.Time(), now) {
				delete(layers, id)
				l.release(y)
			}
		}
		if len(layers) == 0 {
			delete(l.runs, run)
		}
	}
}

func (l *store) release(y *layer) {
	if !y.merged {
		l.layers--
	}
	for g := range y.groups {
		for metric := range y.groups[g].series {
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
	l.sweep(now)
	n := 0
	for _, layers := range l.runs {
		n += len(layers)
	}
	out := make([]layerSnapshot, 0, n)
	for _, layers := range l.runs {
		for _, y := range layers {
			out = append(out, y.snapshot())
		}
	}
	return out
}
