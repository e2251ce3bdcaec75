package reduce

import (
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// BenchmarkCensus records the states of 1,000 seeds: always in the same order, and in another order
// each time.
func BenchmarkCensus(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	states := make([]oona.State, benchSeeds)
	orders := make([][]oona.SeedID, 8)
	for i := range orders {
		for _, id := range rng.Perm(benchSeeds) {
			orders[i] = append(orders[i], oona.SeedID(id))
		}
	}
	for _, c := range []struct {
		name   string
		orders [][]oona.SeedID
	}{{"same", orders[:1]}, {"another", orders}} {
		b.Run(c.name, func(b *testing.B) {
			var census Census
			n := 0
			for b.Loop() {
				census.Add(c.orders[n%len(c.orders)], states)
				n++
			}
			reportSamples(b, benchSeeds)
		})
	}
}
