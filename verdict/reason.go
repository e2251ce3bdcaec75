package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/morphogenetic/oona"
)

var (
	nan              = math.NaN()
	positiveInfinity = math.Inf(1)
	negativeInfinity = math.Inf(-1)
)

// Verdict is the judgement of a layer.
type Verdict struct {
	Level Level
	// Since is when the layer came to this level, in event time.
	Since oona.Micros
	// Reasons has the reasons that stand now, the worst first. There is at most one for a metric and
	// a kind.
	Reasons []Reason
	// Learning is true if nothing can be said yet: no range is learnt, and no reason stands.
	Learning bool
	// End is the end of the last window that was observed.
	End oona.Micros
}

// Reason says what is wrong with a layer. Which numbers are set depends on Kind; see String.
type Reason struct {
	Metric string // empty for SilentSeeds and Stalled; "steps" for Stalled if there are new windows, but no new steps
	Kind   Kind
	Level  Level
	Since  oona.Micros // start of the first window of the fault, in event time
	// Median is the median of the window's samples. Low and High are the expected range. A side
	// without a bound is infinite.
	Median, Low, High float64
	// Value is the greatest sample for Outlier, the best level for Regressed, and the level before
	// the rise for Drift.
	Value float64
	// Part is how many samples, seeds or windows have the fault, out of Of.
	Part, Of int64

	excess int32 // how far the value is outside, in sixteenths of the distance of a warning
}

// String describes r, for example
// "gradient_norm high: median 4.1, expected 0.012 to 0.09 (46 times)".
func (r Reason) String() string {
	name := r.Kind.String()
	if r.Metric != "" {
		name = r.Metric + " " + name
	}
	return name + ": " + r.detail()
}

func (r *Reason) detail() string {
	switch r.Kind {
	case Infinite:
		return fmt.Sprintf("%d of %d samples", r.Part, r.Of)
	case NotMeasured:
		return fmt.Sprintf("%s of %d values that were due", percent(r.Part, r.Of), r.Of)
	case SilentSeeds:
		return fmt.Sprintf("%d of %d seeds", r.Part, r.Of)
	case Dead:
		return fmt.Sprintf("%s of %d samples are above 0.9", percent(r.Part, r.Of), r.Of)
	case High, Low:
		text := fmt.Sprintf("median %s, expected %s", number(r.Median), r.expected())
		if times := r.times(); times >= 1.1 && !math.IsInf(times, 0) {
			text += fmt.Sprintf(" (%s times)", number(times))
		}
		return text
	case Regressed:
		return fmt.Sprintf("median %s, and it was %s", number(r.Median), number(r.Value))
	case Drift:
		return fmt.Sprintf("median %s, and it was %s before it rose slowly", number(r.Median), number(r.Value))
	case Outlier:
		return fmt.Sprintf("greatest %s, median %s, expected %s", number(r.Value), number(r.Median), r.expected())
	case Stuck:
		return fmt.Sprintf("the samples of %d windows are the same", r.Part)
	}
	what := "window"
	if r.Metric != "" {
		what = "rise"
	}
	return fmt.Sprintf("no %s since %s, and other layers went on", what, r.Since.Time().Format("15:04:05"))
}

// expected describes the range.
func (r *Reason) expected() string {
	switch low, high := r.Low > 0, !math.IsInf(r.High, 1) && r.High != 0; {
	case low && high:
		return number(r.Low) + " to " + number(r.High)
	case high:
		return "at most " + number(r.High)
	case low:
		return "at least " + number(r.Low)
	}
	return "anything"
}

// times returns how many times the median is beyond the range.
func (r *Reason) times() float64 {
	if r.Kind == Low {
		return r.Low / r.Median
	}
	return r.Median / r.High
}

// number formats x with two significant digits, and whole numbers from 10 on.
func number(x float64) string {
	if a := math.Abs(x); a >= 10 && a < 1e6 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

func percent(part, of int64) string {
	if of <= 0 {
		return "0%"
	}
	return strconv.FormatInt(bounded(part)*100/of, 10) + "%"
}

// compare orders reasons, the worst first.
func (r *Reason) compare(other *Reason) int {
	return cmp.Or(
		-cmp.Compare(r.Level, other.Level),
		cmp.Compare(r.Kind, other.Kind),
		-cmp.Compare(r.excess, other.excess),
		cmp.Compare(r.Metric, other.Metric),
	)
}

func sortReasons(reasons []Reason) {
	slices.SortFunc(reasons, func(a, b Reason) int { return a.compare(&b) })
}
