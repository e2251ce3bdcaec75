package reduce

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// BenchmarkWorst offers columns of 1,000 samples to a list of five, 64 columns
// a window. Most columns of a steady metric have no value that is worse. Columns of a
// constant metric have only ties. Each column of a growing metric has a worse value. A
// neutral metric has two lists.
func BenchmarkWorst(b *testing.B) {
	seeds := make([]oona.SeedID, benchSeeds)
	for i := range seeds {
		seeds[i] = oona.SeedID(i)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	const columns = 64
	var still, steady, growing [columns][]float32
	for i := range columns {
		still[i] = make([]float32, benchSeeds)
		steady[i] = benchColumns(rng)[0].Values
		growing[i] = slices.Clone(steady[i])
		for j := range growing[i] {
			growing[i][j] += 0.1 * float32(i)
		}
	}
	for _, c := range []struct {
		name    string
		columns [columns][]float32
	}{{"steady", steady}, {"still", still}, {"growing", growing}} {
		var least, greatest [columns]float32
		for i, values := range c.columns {
			least[i], greatest[i] = slices.Min(values), slices.Max(values)
		}
		benchmark := func(b *testing.B, direction oona.Direction) {
			var w worst
			options := Options{WorstSeeds: 5, Reducer: 2}
			n := 0
			for b.Loop() {
				i := n % columns
				if i == 0 {
					w.begin(direction, options)
				}
				w.add(seeds, 0, c.columns[i], least[i], greatest[i])
				n++
			}
			reportSamples(b, benchSeeds)
		}
		b.Run(c.name, func(b *testing.B) { benchmark(b, oona.LowerIsBetter) })
		b.Run(c.name+"/neutral", func(b *testing.B) { benchmark(b, oona.Neutral) })
	}
}
