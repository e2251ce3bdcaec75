package whatif

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/reduce"
)

// layer folds the frames of one layer. It keeps what is needed to merge it with another one.
type layer struct {
	firstOffset, lastOffset int64
	frames                  int64
	readings                int64
	duplicates              int64
	latest                  oona.Micros // event time
	progress                []reduce.Progress
	seeds                   map[oona.SeedID]seen
	metrics                 map[string]*reduce.Metric
}

// seen is the last state of a seed, by the offset of its frame.
type seen struct {
	state  oona.State
	offset int64
}

func newLayer() *layer {
	return &layer{firstOffset: math.MaxInt64, lastOffset: -1, latest: beginning, seeds: make(map[oona.SeedID]seen), metrics: make(map[string]*reduce.Metric)}
}

// folder has what is needed to fold a frame besides the layer.
type folder struct {
	about    windows.Catalogue
	options  reduce.Options
	readings reduce.Readings
	scratch  reduce.Scratch
}

// metric returns a metric of a layer. If the layer does not have it, it is added.
func (o *folder) metric(l *layer, name string) *reduce.Metric {
	m := l.metrics[name]
	if m == nil {
		m = new(reduce.Metric)
		m.Begin(name, o.about(name), o.options)
		l.metrics[name] = m
	}
	return m
}

// add folds a frame.
func (l *layer) add(o *folder, r *windows.Record) {
	f := r.Frame
	l.firstOffset, l.lastOffset = min(l.firstOffset, r.Offset), max(l.lastOffset, r.Offset)
	l.frames++
	l.readings += int64(len(f.Seeds))
	l.latest = max(l.latest, f.ObservedAt)
	l.progress = append(l.progress, reduce.Progress{Producer: f.Producer, Epoch: f.Epoch, Sequence: f.Sequence, Step: f.Step, At: f.ObservedAt})
	for i, id := range f.Seeds {
		l.seeds[id] = seen{f.States[i], r.Offset}
	}
	o.readings.Begin(f, r.Offset, o.options.Reducer)
	for i := range f.Metrics {
		o.metric(l, f.Metrics[i].Name).Add(&o.readings, f.Metrics[i].Values, &o.scratch)
	}
	o.readings.End()
}

// merge adds the frames that another layer has folded.
func (l *layer) merge(o *folder, other *layer) {
	l.firstOffset, l.lastOffset = min(l.firstOffset, other.firstOffset), max(l.lastOffset, other.lastOffset)
	l.frames += other.frames
	l.readings += other.readings
	l.duplicates += other.duplicates
	l.latest = max(l.latest, other.latest)
	l.progress = append(l.progress, other.progress...)
	for id, s := range other.seeds {
		if held, known := l.seeds[id]; !known || s.offset > held.offset {
			l.seeds[id] = s
		}
	}
	for name, m := range other.metrics {
		o.metric(l, name).Merge(m)
	}
}

// exceeds returns the reason if a frame would exceed a limit of the layer, which may be nil.
func (l *layer) exceeds(f *oona.Frame, c *windows.Config) windows.Reason {
	seeds, metrics := 0, 0
	if l != nil {
		seeds, metrics = len(l.seeds), len(l.metrics)
	}
	for _, id := range f.Seeds {
		if l == nil {
			seeds++
		} else if _, known := l.seeds[id]; !known {
			seeds++
		}
	}
	for i := range f.Metrics {
		if l == nil || l.metrics[f.Metrics[i].Name] == nil {
			metrics++
		}
	}
	switch {
	case metrics > c.MaxMetrics:
		return windows.ReasonMetrics
	case seeds > c.MaxSeeds:
		return windows.ReasonSeeds
	}
	return windows.ReasonNone
}

// census counts the seeds by their last state.
func (l *layer) census() oona.SeedCensus {
	sum := oona.SeedCensus{Seen: int64(len(l.seeds))}
	for _, s := range l.seeds {
		sum.ByState[s.state]++
		if s.state.Active() {
			sum.Active++
		}
	}
	return sum
}

// summaries returns the metrics of a group, ascending by name.
func (l *layer) summaries(g oona.Group) []oona.MetricSummary {
	var all []oona.MetricSummary
	for _, m := range l.metrics {
		if m.Group == g {
			var s oona.MetricSummary
			m.Summarize(&s)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b oona.MetricSummary) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// rates returns the rates of a window with the given length. appendedAt is the append time of the
// record that closes the window.
func (l *layer) rates(length, appendedAt oona.Micros) oona.Rates {
	r := oona.Rates{
		FramesPerSecond:   float64(l.frames) / seconds(length),
		ReadingsPerSecond: float64(l.readings) / seconds(length),
		Delay:             appendedAt - l.latest,
	}
	r.Steps, r.StepTime = reduce.Steps(slices.Clone(l.progress))
	if r.StepTime > 0 {
		r.StepsPerSecond = float64(r.Steps) / seconds(r.StepTime)
	}
	return r
}

func seconds(d oona.Micros) float64 { return float64(d) / 1e6 }
