package exact

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/morphogenetic/oona"
)

// CompareMoments returns an error if the moments of g differ from the exact ones of w by
// more than rounding explains.
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

// CompareRollups compares the moments of metrics within rounding, and everything
// else but the hash exactly. The moments of want are exact.
func CompareRollups(got, want *oona.Rollup) error {
	if len(got.Metrics) != len(want.Metrics) {
		return fmt.Errorf("%d metrics, want %d", len(got.Metrics), len(want.Metrics))
	}
	g, w := *got, *want
	g.Metrics, w.Metrics, g.Hash, w.Hash = nil, nil, 0, 0
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("\n got %+v\nwant %+v", g, w)
	}
	for i := range want.Metrics {
		g, w := &got.Metrics[i], &want.Metrics[i]
		if err := CompareMoments(g, w); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		if !EqualBesidesMoments(g, w) {
			return fmt.Errorf("%s:\n got %+v\nwant %+v", w.Name, *g, *w)
		}
	}
	return nil
}
