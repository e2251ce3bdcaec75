package reduce

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// BenchmarkHistogram counts columns of 1,000 samples, for each metric of the benchmarks. The metrics
// differ in their signs and numbers of zeros. There are many columns in turn, so that the branch
// predictor cannot learn them.
func BenchmarkHistogram(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i, c := range benchColumns(rng) {
		blocks := make([][]float32, 64)
		for j := range blocks {
			blocks[j] = benchColumns(rng)[i].Values
		}
		least := slices.Min(slices.Concat(blocks...))
		b.Run(c.Name, func(b *testing.B) {
			var h histogram
			var lent Scratch
			n := 0
			for b.Loop() {
				h.add(blocks[n%len(blocks)], least, &lent)
				n++
			}
			reportSamples(b, benchSeeds)
		})
	}
}
