package verdict

import (
	"iter"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
)

// Judge judges one layer of a run. Pass it the rollups of both groups of the layer, those of each
// group in the order of their triggers and without repeats. It makes no difference how the two
// groups are interleaved.
type Judge struct {
	rule   func(metric string) Rule
	groups [2]group // by oona.Group
	pace   pace
}

// NewJudge returns a Judge that has not seen any rollup. rule returns the Rule of a metric. It must
// always return the same Rule for the same metric.
func NewJudge(rule func(metric string) Rule) *Judge { return &Judge{rule: rule} }

// Observe compares a rollup with those before it, and learns from it.
func (j *Judge) Observe(r *oona.Rollup) {
	if r.Group > oona.Performance {
		return
	}
	j.groups[r.Group].observe(r, j.rule)
	j.pace.observe(r)
}

// At returns the verdict at the event time now, which is the latest end of a window of any layer of
// the run. Only the kind Stalled depends on it. If now is 0, no layer is stalled.
func (j *Judge) At(now oona.Micros) Verdict { return j.at(now, 0) }

// at is like At. others is the latest end of a window of the run in which the steps rose.
func (j *Judge) at(now, others oona.Micros) Verdict {
	v := Verdict{End: j.pace.end, Learning: true}
	var warning, worst truth
	for i := range j.groups {
		g := &j.groups[i]
		v.Reasons = g.appendTo(v.Reasons)
		warning, worst = warning.or(g.warning), worst.or(g.worst)
		v.Learning = v.Learning && !g.learnt()
	}
	if r, ok := j.pace.stalled(now, others); ok {
		v.Reasons = append(v.Reasons, r)
		warning = warning.or(truth{true, r.Since})
	}
	switch {
	case worst.is:
		v.Level, v.Since = Critical, worst.since
	case warning.is:
		v.Level, v.Since = Warning, max(warning.since, worst.since)
	default:
		v.Since = max(warning.since, worst.since)
	}
	v.Learning = v.Learning && v.Level == OK
	sortReasons(v.Reasons)
	return v
}

// Metric describes what a Judge knows about one metric of a layer.
type Metric struct {
	Name  string
	Group oona.Group
	// Median is the median of the last window with samples. It is accurate to the middle of a
	// histogram bucket, which is 2.2% wide.
	Median float64
	// Low and High are the range within which that median was expected. They are NaN until the range
	// is learnt. A side that is not judged is infinite.
	Low, High float64
	// BestAge is the number of windows since the level last fell by 7%, or -1 for metrics that
	// need not fall.
	BestAge int
}

// Metrics returns the metrics with a level, in the order of their group and name.
func (j *Judge) Metrics() iter.Seq[Metric] {
	return func(yield func(Metric) bool) {
		for i := range j.groups {
			for k := range j.groups[i].metrics {
				m := &j.groups[i].metrics[k]
				if m.median.n == 0 {
					continue
				}
				shown := Metric{Name: m.name, Group: oona.Group(i), Median: m.value(m.at), BestAge: -1}
				shown.Low, shown.High = m.expected()
				if m.rule.Best && m.hasBest {
					shown.BestAge = int(m.age)
				}
				if !yield(shown) {
					return
				}
			}
		}
	}
}

// group is the part of a Judge for one group of metrics.
type group struct {
	reasons
	metrics    []metric // metrics that are judged, ascending by name
	census     census
	start, end oona.Micros // start and end of the last window
	seen       bool        // whether there was a window
	changing   uint8       // number of windows from now on for which larger distances are tolerated
}

const (
	gapLengths   = 10 // a pause of more window lengths is a gap
	changingFor  = 4  // windows for which larger distances are tolerated after a change
	changedShare = 4  // the layer changes if one in so many seeds has changed its state
	fewSeeds     = 3  // with so few seeds, each of them may be the median
)

// window has what is needed to judge one window.
type window struct {
	*reasons
	start    oona.Micros
	changing bool
	idle     bool // whether no seed is active
	reducer  int32
	readings int64
	seen     int64 // number of seeds in the window
	due      int64 // number of seeds that were active before and are active now, so that they must have values
	moved    int64 // number of seeds that have changed their state
	// computing is the number of active seeds, before or now, whichever is larger. If it would be 0,
	// it is the number of seeds in the states from TRAINING to FOSSILIZED.
	computing int64
}

func (w *window) add(r Reason) { w.reasons.add(r, w.start) }

// share adds a reason if its Part is more than one in n. The reason is critical if it is more than a
// half.
func (w *window) share(r Reason, n int64) {
	part, of := bounded(r.Part), bounded(r.Of)
	switch {
	case part*2 > of:
		r.Level = Critical
	case part*n > of:
		r.Level = Warning
	default:
		return
	}
	w.add(r)
}

func (g *group) observe(r *oona.Rollup, rule func(string) Rule) {
	w := window{reasons: &g.reasons, start: r.Start, reducer: r.Reducer, readings: r.Readings}
	if r.Group == oona.Health {
		g.census.observe(r, &w)
		w.idle = r.Seeds.Active <= 0
	}
	g.phase(r, &w)
	for i := range r.Metrics {
		s := &r.Metrics[i]
		if m := g.metric(s.Name, rule); m != nil {
			m.observe(s, &w)
		}
	}
	if r.Group == oona.Health {
		g.census.silent(&w)
	}
	g.settle(r.End)
	g.start, g.end, g.seen = r.Start, r.End, true
}

// phase detects that the layer may now behave differently: after a gap, if the windows have another
// length, or because many seeds have changed their state.
func (g *group) phase(r *oona.Rollup, w *window) {
	length := r.End - r.Start
	switch {
	case !g.seen:
		g.warning.since, g.worst.since = r.Start, r.Start
	case r.Start-g.end > gapLengths*length, length != g.end-g.start && r.Kind != oona.Session:
		g.changed(true)
		g.census.forget()
	case w.moved > 0 && w.computing <= fewSeeds:
		g.changed(true) // the median may now come from another seed
	case w.moved > 0 && w.moved*changedShare >= w.computing:
		g.changed(false)
	case g.changing > 0:
		g.changing--
	}
	w.changing = g.changing > 0
}

func (g *group) changed(gap bool) {
	g.changing = changingFor
	for i := range g.metrics {
		g.metrics[i].changed(gap)
	}
}

// metric returns the state of a metric, or nil if it is not judged.
func (g *group) metric(name string, rule func(string) Rule) *metric {
	i, found := slices.BinarySearchFunc(g.metrics, name, func(m metric, name string) int { return strings.Compare(m.name, name) })
	if !found {
		r := rule(name)
		if !r.Judged {
			return nil
		}
		g.metrics = slices.Insert(g.metrics, i, newMetric(name, r))
	}
	return &g.metrics[i]
}

// learnt reports whether the range of any metric is known.
func (g *group) learnt() bool {
	return slices.ContainsFunc(g.metrics, func(m metric) bool { return m.median.n >= learnt })
}
