package export

import (
	"slices"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/verdict"
)

// other is the label value for runs, layers and metrics beyond a limit. A metric with this name
// is merged there, too.
const other = rollups.Other

// Labels whose values are limited.
const (
	labelRun    = layerseries.Run
	labelLayer  = layerseries.Layer
	labelMetric = layerseries.Metric
)

// store keeps the exposed values of each layer. The caller passes the time to its methods.
type store struct {
	cfg    Config
	folded func(label string) // is told of each rollup or metric merged under other

	mu      sync.Mutex
	layers  *rollups.Layers[layer]
	runs    runs
	ends    runEnds
	judges  *judges
	metrics map[string]int // series that use a metric's name, except other
}

func newStore(cfg Config, rule func(metric string) verdict.Rule, folded func(label string)) *store {
	l := &store{cfg: cfg, folded: folded, metrics: make(map[string]int)}
	l.judges = newJudges(rule, cfg.MaxTotalLayers)
	l.runs = runs{limit: cfg.MaxRuns, silentAfter: cfg.SilentAfter, kept: cfg.RunKept, dropped: l.judges.forgetRun, of: make(map[oona.RunID]*run)}
	l.ends = runEnds{limit: cfg.MaxRuns, kept: cfg.RunKept, of: make(map[oona.RunID]*runEnd)}
	l.layers = rollups.NewLayers(rollups.Limits{
		Runs: cfg.MaxRuns, Layers: cfg.MaxLayers, Total: cfg.MaxTotalLayers,
		SilentAfter: cfg.SilentAfter, EndedAfter: cfg.SilentAfter,
	}, l.release)
	return l
}

// fold takes a rollup that was not read before, and the time at which it was appended.
// If accumulate is false, the rollup is only shown as the layer's last window. fold
// returns false if the window ended so long ago that the layer counts as silent.
func (l *store) fold(r *oona.Rollup, appended time.Time, accumulate bool, now time.Time) (shown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs.observe(r, appended, now)
	y, beyond := l.layers.Of(r, now)
	if y == nil || !y.Merged {
		level := l.judges.observe(r, y != nil)
		if y != nil {
			y.Value.verdicts.set(level, accumulate)
		}
	}
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
		if r.Group == oona.Performance { // the window's rollup of health has the same numbers
			y.Value.recent.Add(countsOf(r, appended), r.End, recentWindows)
		}
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

// release frees the names of a layer's metrics for others. The layer is not shown any more.
func (l *store) release(y *rollups.Layer[layer]) {
	l.judges.hide(y.Run, y.ID)
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

// snapshotLayers is of how many layers a snapshot is taken at a time. Between them, fold
// may go on.
const snapshotLayers = 64

// snapshot returns the values to expose at the time now. All values of a layer are from the same
// moment. The verdicts are left out if judge is false.
func (l *store) snapshot(now time.Time, judge bool) ([]layerSnapshot, []runSnapshot) {
	layers, runs := l.shown(now)
	out := make([]layerSnapshot, 0, len(layers))
	for part := range slices.Chunk(layers, snapshotLayers) {
		out = l.appendSnapshots(out, part, judge)
	}
	return out, runs
}

func (l *store) shown(now time.Time) ([]*rollups.Layer[layer], []runSnapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	layers := slices.AppendSeq(make([]*rollups.Layer[layer], 0, l.layers.Len()), l.layers.All(now))
	return layers, l.snapshotRuns(now)
}

// snapshotRuns returns the runs that are kept at now with their ends, and forgets the others.
func (l *store) snapshotRuns(now time.Time) []runSnapshot {
	all := l.runs.snapshot(now)
	l.ends.forget(now, l.runs.known)
	for i := range all {
		all[i].ended = l.ends.after(all[i].id, all[i].start)
	}
	return all
}

func (l *store) appendSnapshots(out []layerSnapshot, of []*rollups.Layer[layer], judge bool) []layerSnapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := func(id oona.RunID) bool {
		r := l.runs.of[id]
		return r != nil && l.ends.after(id, r.start) != nil
	}
	for _, y := range of {
		s := snapshotOf(y)
		if judge && !y.Merged {
			s.judgement = l.judges.snapshot(y.Run, y.ID, ended(y.Run), l.cfg.expected)
		}
		out = append(out, s)
	}
	return out
}
