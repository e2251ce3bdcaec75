package export

import (
	"time"

	"github.com/morphogenetic/oona"
)

// layer is what is exposed of one layer. Timelines of a run that report the
// same layer meet here: their rollups add up, and the latest window stands.
type layer struct {
	run     oona.RunID
	id      oona.LayerID
	merged  bool        // it stands for layers beyond a cap: nothing but sums
	created time.Time   // when its sums began
	seen    time.Time   // when its last rollup came
	end     oona.Micros // of its latest window
	totals  totals
	groups  [2]layerGroup // by oona.Group
}

// totals are taken from the rollups of performance, which every window has.
type totals struct {
	frames, readings, duplicates int64
}

type layerGroup struct {
	last   *window            // nil: none yet, or merged
	series map[string]*series // by metric
}

// series accumulates one metric.
type series struct {
	samples     histogram
	notMeasured int64
	infinite    int64
}

// window is the last closed window of one group. It does not change once made,
// so that a snapshot may keep it.
type window struct {
	end        oona.Micros
	seeds      oona.SeedCensus
	rates      oona.Rates
	speedKnown bool // of steps
	metrics    []windowMetric
}

// windowMetric is of a metric that had finite samples.
type windowMetric struct {
	name                   string
	mean, min, max, stddev float64
	worst                  []oona.SeedValue
}

func (y *layer) accumulate(r *oona.Rollup) {
	if r.Group != oona.Performance {
		return // the window's rollup of performance has the same numbers
	}
	y.totals.frames += r.Frames
	y.totals.readings += r.Readings
	y.totals.duplicates += r.Duplicates
}

func (s *series) accumulate(m *oona.MetricSummary) {
	s.samples.merge(m)
	s.notMeasured += m.NotMeasured
	s.infinite += m.Infinite
}

// window keeps of r what is shown of a last window. Metrics beyond the cap are
// left out: a mean or a worst seed of unlike metrics would mean nothing.
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

// layerSnapshot is a layer at one moment, for whoever holds no lock.
type layerSnapshot struct {
	run, id string
	merged  bool
	created time.Time
	totals  totals
	groups  [2]groupSnapshot
}

type groupSnapshot struct {
	last   *window
	series []seriesSnapshot
}

type seriesSnapshot struct {
	metric string
	series
}

func (y *layer) snapshot() layerSnapshot {
	out := layerSnapshot{run: string(y.run), id: string(y.id), merged: y.merged, created: y.created, totals: y.totals}
	for g := range y.groups {
		from, to := &y.groups[g], &out.groups[g]
		to.last = from.last
		to.series = make([]seriesSnapshot, 0, len(from.series))
		for metric, s := range from.series {
			to.series = append(to.series, seriesSnapshot{metric, series{s.samples.snapshot(), s.notMeasured, s.infinite}})
		}
	}
	return out
}
