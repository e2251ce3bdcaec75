package windows

import (
	"cmp"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/reduce"
)

// accumulator folds the frames of one layer in one window.
type accumulator struct {
	layer                   oona.LayerID
	firstOffset, lastOffset int64
	frames                  int64
	readings                int64
	duplicates              int64
	leastStep, greatestStep int64
	earliest, latest        oona.Micros       // event time
	progress                []reduce.Progress // set while the window is emitted, by reducer 2
	census                  reduce.Census
	metrics                 []reduce.Metric // in the order of their first appearance
	order                   []int           // indexes of metrics in the order of their names; set by sortMetrics
}

// reset empties a for another window and keeps its memory, within bounds.
func (a *accumulator) reset() {
	a.layer = ""
	a.frames, a.readings, a.duplicates = 0, 0, 0
	a.progress = nil
	a.census.Reset()
	for i := range a.metrics {
		a.metrics[i].Reset()
	}
	a.metrics = a.metrics[:0]
}

// position returns the index of the metric of column i. Columns usually have the same order
// in every frame.
func (a *accumulator) position(i int, name string) (int, bool) {
	if i < len(a.metrics) && a.metrics[i].Name == name {
		return i, true
	}
	for j := range a.metrics {
		if a.metrics[j].Name == name {
			return j, true
		}
	}
	return 0, false
}

// admitsMetrics reports whether there would be at most limit metrics.
func (a *accumulator) admitsMetrics(columns []oona.Column, limit int) bool {
	if len(a.metrics)+len(columns) <= limit {
		return true
	}
	total := len(a.metrics)
	for i := range columns {
		if _, known := a.position(i, columns[i].Name); !known {
			total++
		}
	}
	return total <= limit
}

// metric returns the metric of column i, a new one if the accumulator does not have it.
func (a *accumulator) metric(i int, name string, about func(string) oona.Metric, cfg *Config) *reduce.Metric {
	if at, known := a.position(i, name); known {
		return &a.metrics[at]
	}
	a.metrics = extend(a.metrics)
	m := &a.metrics[len(a.metrics)-1]
	m.Begin(name, about(name), reduce.Options{Reducer: cfg.Reducer, WorstSeeds: cfg.WorstSeeds})
	return m
}

// extend returns s with one more element. The element keeps the memory from its last use.
func extend[T any](s []T) []T { return slices.Grow(s, 1)[:len(s)+1] }

// recordExtent counts a frame and records its extent in the log, in time and in steps.
func (a *accumulator) recordExtent(offset int64, f *oona.Frame) {
	if a.frames == 0 {
		a.firstOffset = offset
		a.leastStep, a.greatestStep = f.Step, f.Step
		a.earliest, a.latest = f.ObservedAt, f.ObservedAt
	}
	a.lastOffset = offset
	a.frames++
	a.readings += int64(len(f.Seeds))
	a.leastStep, a.greatestStep = min(a.leastStep, f.Step), max(a.greatestStep, f.Step)
	a.earliest, a.latest = min(a.earliest, f.ObservedAt), max(a.latest, f.ObservedAt)
}

// stepsPerSecond returns the speed as reducer 1 computes it. It is 0 if all frames were
// observed at one instant, and wrong if the step decreases within the window.
func (a *accumulator) stepsPerSecond() float64 {
	if a.latest == a.earliest {
		return 0
	}
	return float64(a.greatestStep-a.leastStep) / seconds(a.latest-a.earliest)
}

// sortMetrics sets order.
func (a *accumulator) sortMetrics() {
	a.order = a.order[:0]
	for i := range a.metrics {
		a.order = append(a.order, i)
	}
	slices.SortFunc(a.order, func(i, j int) int { return cmp.Compare(a.metrics[i].Name, a.metrics[j].Name) })
}

func seconds(d oona.Micros) float64 { return float64(d) / 1e6 }
