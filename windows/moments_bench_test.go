package windows

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkMoments folds one column of 1,000 samples into a metric's moments.
func BenchmarkMoments(b *testing.B) {
	values := benchColumns(rand.New(rand.NewPCG(1, 2)))[0].Values
	var m moments
	for b.Loop() {
		block, _ := momentsOf(values)
		m.merge(block)
	}
	reportSamples(b, len(values))
}

func reportSamples(b *testing.B, perLoop int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perLoop), "ns/sample")
}
