package export

import (
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/verdict"
)

// layer has the exposed values of one layer. The rollups of all timelines of a run
// that report the layer are added up, and the latest window is shown. For a merged
// layer, only the sums are kept.
type layer struct {
	totals   totals
	verdicts verdicts
	groups   [2]layerGroup // indexed by oona.Group
	recent   rollups.Windows[windowCounts]
}

// verdicts counts how often a layer has come to a level.
type verdicts struct {
	level   verdict.Level
	changes [verdictLevels]int64
}

const verdictLevels = int(verdict.Critical) + 1

// set takes the level after a window. If count is false, a change is not counted.
func (v *verdicts) set(level verdict.Level, count bool) {
	if count && level != v.level {
		v.changes[level]++
	}
	v.level = level
}

// totals are sums over the rollups of performance, which every window has.
type totals struct {
	frames, readings, duplicates int64
}

// shownWindows is how many windows of a layer are kept: only the last is exposed.
const shownWindows = 1

type layerGroup struct {
	windows rollups.Windows[*window]
	series  map[string]*series // by metric
}

// series accumulates one metric.
type series struct {
	samples     histogram
	notMeasured int64
	infinite    int64
	exemplars   []exemplar // ascending by time; a list does not change once it is here
}

// window has the exposed values of a closed window of one group. It does not change
// once it is made, so a snapshot may keep it.
type window struct {
	end        oona.Micros
	seeds      oona.SeedCensus
	rates      oona.Rates
	speedKnown bool // whether the speed of steps is known
	metrics    []windowMetric
}

// windowMetric is of a metric that had finite samples.
type windowMetric struct {
	name                   string
	mean, min, max, stddev float64
	worst                  []oona.SeedValue
}

func (t *totals) accumulate(r *oona.Rollup) {
	if r.Group != oona.Performance {
		return // the window's rollup of performance has the same numbers
	}
	t.frames += r.Frames
	t.readings += r.Readings
	t.duplicates += r.Duplicates
}

func (s *series) accumulate(m *oona.MetricSummary) {
	s.samples.merge(m)
	s.notMeasured += m.NotMeasured
	s.infinite += m.Infinite
}

// window returns the values that are shown if r is the last window. It leaves out metrics beyond
// the limit: a mean or a worst seed of unlike metrics would mean nothing.
func (l *store) window(r *oona.Rollup, g *layerGroup) *window {
	w := &window{end: r.End, seeds: r.Seeds, rates: r.Rates, speedKnown: r.SpeedKnown(), metrics: make([]windowMetric, 0, len(r.Metrics))}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		if g.series[m.Name] == nil || m.Name == other || m.Count == 0 {
			continue
		}
		w.metrics = append(w.metrics, windowMetric{
			name: m.Name,
			mean: m.Mean, min: m.Min, max: m.Max, stddev: m.StdDev(),
			worst: m.Worst[:min(len(m.Worst), l.cfg.WorstSeeds)],
		})
	}
	return w
}

// layerSnapshot is a layer at one moment. It may be read without the lock.
type layerSnapshot struct {
	run, id string
	created time.Time
	totals  totals
	changes [verdictLevels]int64
	groups  [2]groupSnapshot

	judgement *judgement // nil if there is none
}

// seriesOfGroups is how many series groupCollectors make of the layer.
func (y *layerSnapshot) seriesOfGroups() (n int) {
	for i := range y.groups {
		g := &y.groups[i]
		n += 3 * len(g.series)
		if g.last == nil {
			continue
		}
		for k := range g.last.metrics {
			n += 4 + 2*len(g.last.metrics[k].worst)
		}
	}
	return n
}

type groupSnapshot struct {
	last   *window // nil if there is none yet, or if the layer is merged
	series []seriesSnapshot
}

type seriesSnapshot struct {
	metric string
	series
}

func snapshotOf(y *rollups.Layer[layer]) layerSnapshot {
	out := layerSnapshot{run: string(y.Run), id: string(y.ID), created: y.Created, totals: y.Value.totals, changes: y.Value.verdicts.changes}
	for g := range y.Value.groups {
		from, to := &y.Value.groups[g], &out.groups[g]
		_, to.last, _ = from.windows.Last()
		to.series = make([]seriesSnapshot, 0, len(from.series))
		for metric, s := range from.series {
			to.series = append(to.series, seriesSnapshot{metric, series{s.samples.snapshot(), s.notMeasured, s.infinite, s.exemplars}})
		}
	}
	return out
}
