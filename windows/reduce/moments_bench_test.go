package reduce

import (
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// benchSeeds is the length of a column in the benchmarks.
const benchSeeds = 1000

// benchColumns makes columns of positive values over a few octaves, of ratios with
// many zeros, and of values of either sign.
func benchColumns(rng *rand.Rand) []oona.Column {
	columns := []oona.Column{{Name: "weight_norm"}, {Name: "dead_fraction"}, {Name: "improvement"}}
	for i := range columns {
		c := &columns[i]
		c.Values = make([]float32, benchSeeds)
		for j := range c.Values {
			switch {
			case c.Name == "weight_norm":
				c.Values[j] = float32(rng.ExpFloat64())
			case c.Name == "improvement":
				c.Values[j] = float32(rng.NormFloat64())
			case rng.IntN(10) == 0:
				c.Values[j] = rng.Float32()
			}
		}
	}
	return columns
}

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
