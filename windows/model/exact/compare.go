package exact

import (
	"fmt"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// CompareMoments returns an error if the moments of g differ from those of w, which
// are exact, by more than rounding explains.
func CompareMoments(g, w *oona.MetricSummary) error {
	const tolerance = 1e-9
	size := math.Max(math.Abs(w.Min), math.Abs(w.Max)) // sums may cancel
	if d := math.Abs(g.Sum - w.Sum); !(d <= tolerance*size*float64(w.Count)) {
		return fmt.Errorf("sum %g, exactly %g", g.Sum, w.Sum)
	}
	if d := math.Abs(g.Mean - w.Mean); !(d <= tolerance*size) {
		return fmt.Errorf("mean %g, exactly %g", g.Mean, w.Mean)
	}
	if d := math.Abs(g.M2 - w.M2); !(d <= tolerance*w.M2) {
		return fmt.Errorf("m2 %g, exactly %g", g.M2, w.M2)
	}
	return nil
}

// EqualBesidesMoments compares everything but sum, mean and m2, bit by bit. A nil
// slice equals an empty one.
func EqualBesidesMoments(g, w *oona.MetricSummary) bool {
	return g.Name == w.Name && g.Count == w.Count && g.NotMeasured == w.NotMeasured && g.NotMeasuredActive == w.NotMeasuredActive && g.Infinite == w.Infinite &&
		g.Min == w.Min && g.Max == w.Max && g.Histogram.Zero == w.Histogram.Zero &&
		slices.Equal(g.Histogram.Positive.Indexes, w.Histogram.Positive.Indexes) &&
		slices.Equal(g.Histogram.Positive.Counts, w.Histogram.Positive.Counts) &&
		slices.Equal(g.Histogram.Negative.Indexes, w.Histogram.Negative.Indexes) &&
		slices.Equal(g.Histogram.Negative.Counts, w.Histogram.Negative.Counts) &&
		slices.Equal(g.Worst, w.Worst)
}
