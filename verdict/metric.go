package verdict

import (
	"github.com/morphogenetic/oona"
)

// metric is the state of one metric in a judge.
type metric struct {
	name   string
	rule   Rule
	median series // of the buckets of the medians
	top    series // of the distances from the median to the greatest sample; for rules with Outlier
	of     [2]limits

	lean      lean
	at        int32 // bucket of the median in the last window with samples
	low, high int32 // buckets of the expected range in that window
	best      int32 // the lowest level since the layer last changed; valid if hasBest
	mark      int32 // the last level that was clearly better than all before
	age       int32 // number of windows since mark was set
	hasBest   bool
	judged    bool // whether the last window with samples had an expected range
	repeats   uint8
	last      fingerprint
}

// fingerprint is equal for windows with the same samples.
type fingerprint struct {
	count          int64
	min, max, mean float64
}

const (
	never        = int32(1) << 30 // more than any distance
	bestAgeSteps = 3 * unit       // a level that is lower by this, which is 7%, is clearly better
	regressSteps = 32 * unit      // a factor of two
	outlierLeast = 8              // windows with fewer samples are not judged for outliers
	deadBucket   = -4             // this bucket and those above have values over 2^(-5/32) = 0.897
	deadLeast    = 4              // windows with fewer samples are not judged for dead units
	stuckAfter   = 3              // after so many repeats, samples are stuck
)

func newMetric(name string, rule Rule) metric {
	m := metric{name: name, rule: rule}
	m.of[0] = limits{warn: steps(rule.Warn) * unit, critical: never, side: rule.Level}
	if rule.Critical != 0 {
		m.of[0].critical = steps(rule.Critical) * unit
	}
	m.of[1] = limits{warn: steps(rule.Outlier) * unit, critical: never, side: Up}
	return m
}

// observe judges the window's samples of m and learns from them.
func (m *metric) observe(s *oona.MetricSummary, w *window) {
	if s.Infinite > 0 {
		w.add(Reason{Metric: m.name, Kind: Infinite, Level: Critical, Part: s.Infinite, Of: s.Infinite + s.NotMeasured + s.Count})
	}
	if m.rule.Due {
		m.notMeasured(s, w)
	}
	if s.Count <= 0 {
		return
	}
	if m.rule.Dead && s.Count >= deadLeast {
		m.dead(s, w)
	}
	if m.rule.Level != NoSide {
		m.levels(s, w)
	}
	if m.rule.Stuck {
		m.stuck(s, w)
	}
}

// levels judges the median and the greatest sample.
func (m *metric) levels(s *oona.MetricSummary, w *window) {
	at, top := ranks(s)
	changing := w.changing
	if m.median.returned(at*unit, m.of[0], changing) {
		m.hasBest, m.lean = false, lean{}
	}
	tolerated := m.median.tolerance(m.of[0], changing)
	m.at, m.judged = at, m.median.n >= learnt
	m.low, m.high = floor(m.median.level-tolerated), -floor(-m.median.level-tolerated)
	width, n := m.median.width, m.median.n
	out := m.median.add(at*unit, m.of[0], changing)
	if out.accepted {
		m.hasBest = false
	}
	matters := m.of[0].warn
	if changing {
		matters += matters / 2
	}
	if c := leaningAfter(n); n < learnt || out.accepted {
		m.lean = lean{}
	} else if m.lean.add(out, c, width, matters, m.of[0].side) && out.level == OK {
		// The expected range is narrower for values that stay on one side of the level.
		out.level, out.warn = Warning, max(matters, c.ignores*width/16)
		expected := at*unit - out.excess
		m.low, m.high = floor(expected-out.warn), -floor(-expected-out.warn)
	}
	if out.level != OK {
		r := Reason{Metric: m.name, Kind: High, Level: out.level, excess: out.rank()}
		if out.excess < 0 {
			r.Kind = Low
		}
		w.add(m.ranged(r))
	}
	if m.rule.Outlier != 0 && s.Count >= outlierLeast {
		m.top.returned((top-at)*unit, m.of[1], changing)
		expected := m.top.level + m.top.tolerance(m.of[1], changing)
		if out := m.top.add((top-at)*unit, m.of[1], changing); out.level != OK {
			median := m.value(at)
			w.add(Reason{
				Metric: m.name, Kind: Outlier, Level: Warning, excess: out.rank(),
				Median: median, High: median * power(-2*floor(-expected)), Value: m.value(top),
			})
		}
	}
	m.progress(w)
}

// progress compares the level with the levels before.
func (m *metric) progress(w *window) {
	level := m.median.level
	if m.median.n >= learnt {
		if !m.hasBest {
			m.best, m.mark, m.age, m.hasBest = level, level, 0, true
		}
		m.best = min(m.best, level)
		if m.age++; m.mark-level >= bestAgeSteps {
			m.mark, m.age = level, 0
		}
		if m.rule.Best && level-m.best > regressSteps {
			w.add(Reason{
				Metric: m.name, Kind: Regressed, Level: Warning, excess: (level - m.best) / (regressSteps / 16),
				Median: m.value(m.at), High: power(-2 * floor(-m.best-regressSteps)), Value: m.value(floor(m.best)),
			})
		}
	}
	if m.rule.Drift && m.median.lag > 0 {
		w.add(Reason{
			Metric: m.name, Kind: Drift, Level: Warning, excess: (level - m.median.slow) / (driftSteps / 16),
			Median: m.value(m.at), High: power(-2 * floor(-m.median.slow-driftSteps)), Value: m.value(floor(m.median.slow)),
		})
	}
}

// dead counts the samples that are nearly 1.
func (m *metric) dead(s *oona.MetricSummary, w *window) {
	dead, p := int64(0), &s.Histogram.Positive
	for i := min(len(p.Indexes), len(p.Counts)) - 1; i >= 0 && p.Indexes[i] >= deadBucket; i-- {
		dead += bounded(int64(min(p.Counts[i], most)))
	}
	w.share(Reason{Metric: m.name, Kind: Dead, Part: dead, Of: s.Count}, 4)
}

// notMeasured counts the samples that active seeds should have had. Since reducer 2, a
// rollup says how many of them were NaN. With reducer 1 the number is estimated, and samples that
// may be missing because seeds have just changed their state are subtracted.
func (m *metric) notMeasured(s *oona.MetricSummary, w *window) {
	if w.reducer >= 2 {
		w.share(Reason{Metric: m.name, Kind: NotMeasured, Part: bounded(s.NotMeasuredActive), Of: bounded(s.Count) + bounded(s.NotMeasuredActive)}, 10)
		return
	}
	if w.seen <= 0 {
		return
	}
	due := bounded(w.readings) * bounded(w.due) / w.seen
	explained := bounded(w.readings) * bounded(w.moved) / w.seen
	w.share(Reason{Metric: m.name, Kind: NotMeasured, Part: max(0, due-bounded(s.Count)-explained), Of: due}, 10)
}

// stuck detects samples that are equal to those of the windows before.
func (m *metric) stuck(s *oona.MetricSummary, w *window) {
	f := fingerprint{s.Count, s.Min, s.Max, s.Mean}
	if f == m.last && s.Count > 1 && !w.idle {
		m.repeats = min(m.repeats+1, 200)
	} else {
		m.repeats = 0
	}
	m.last = f
	if m.repeats >= stuckAfter {
		w.add(Reason{Metric: m.name, Kind: Stuck, Level: Warning, Median: s.Mean, Part: int64(m.repeats) + 1})
	}
}

// changed is called when the layer may now behave differently.
func (m *metric) changed(gap bool) {
	m.median.changed(gap)
	m.top.changed(gap)
	m.hasBest = false
}

// ranged completes a reason about the median.
func (m *metric) ranged(r Reason) Reason {
	r.Median = m.value(m.at)
	r.Low, r.High = m.expected()
	return r
}

// expected returns the bounds within which the median was expected.
func (m *metric) expected() (low, high float64) {
	if !m.judged {
		return nan, nan
	}
	low, high = negativeInfinity, positiveInfinity
	if m.rule.Level&Down != 0 {
		low = power(2 * m.low)
	}
	if m.rule.Level&Up != 0 {
		high = power(2 * m.high)
	}
	return low, high
}

// value returns the middle of a bucket.
func (m *metric) value(bucket int32) float64 { return power(2*bucket - 1) }

// rank returns how far a value is outside, in sixteenths of the distance of a warning. Reasons are
// sorted by it.
func (o outcome) rank() int32 { return int32(int64(abs(o.excess)) * 16 / int64(max(o.warn, 1))) }

// floor converts a value of a series to a bucket, and rounds down.
func floor(x int32) int32 { return x >> 8 }

// most bounds counts, so that products do not overflow, whatever a rollup contains.
const most = 1 << 31

func bounded(n int64) int64 { return max(0, min(n, most)) }

// ranks returns the buckets of the median and of the greatest sample.
func ranks(s *oona.MetricSummary) (median, top int32) {
	h := &s.Histogram
	below := h.Zero
	for _, c := range h.Negative.Counts {
		below += c
	}
	n := min(len(h.Positive.Indexes), len(h.Positive.Counts))
	if n == 0 {
		return least, least
	}
	top = bucket(h.Positive.Indexes[n-1])
	rank := uint64(s.Count) / 2
	if rank < below {
		return least, top
	}
	for i, c := range h.Positive.Counts[:n] {
		if below += c; rank < below {
			return bucket(h.Positive.Indexes[i]), top
		}
	}
	return top, top
}

// bucket limits the index of a bucket to the indexes that values of a float32 can have.
func bucket(i int32) int32 { return max(least, min(i, 4096)) }
