package reduce

import (
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// TestCensusAgainstMap compares a census with a map, for frames of whole layers, of parts of layers, and
// of any seeds in any order. The same census is used again after a reset.
func TestCensusAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	var c Census
	for round := range 300 {
		c.Reset()
		want := map[oona.SeedID]oona.State{}
		stretch := 1 + rng.IntN(12)
		limit := 10 + rng.IntN(40)
		for range 20 {
			var seeds []oona.SeedID
			switch rng.IntN(3) {
			case 0: // by stretches
				first := stretch * rng.IntN(3)
				for i := range stretch {
					seeds = append(seeds, oona.SeedID(first+i))
				}
			case 1: // a whole layer
				for i := range 3 * stretch {
					seeds = append(seeds, oona.SeedID(i))
				}
			case 2:
				for _, i := range rng.Perm(40)[:1+rng.IntN(20)] {
					seeds = append(seeds, oona.SeedID(i))
				}
			}
			union := map[oona.SeedID]bool{}
			for id := range want {
				union[id] = true
			}
			var states []oona.State
			for _, id := range seeds {
				union[id] = true
				states = append(states, oona.State(rng.IntN(oona.StateCount)))
			}
			if got := c.Admits(seeds, limit); got != (len(union) <= limit) {
				t.Fatalf("round %d: %d distinct seeds of at most %d: admitted %v", round, len(union), limit, got)
			}
			if len(union) > limit {
				continue
			}
			c.Add(seeds, states)
			for i, id := range seeds {
				want[id] = states[i]
			}
		}
		var sum oona.SeedCensus
		for _, s := range want {
			sum.Seen++
			sum.ByState[s]++
			if s.Active() {
				sum.Active++
			}
		}
		if got := c.Count(); got != sum {
			t.Fatalf("round %d: %+v, want %+v", round, got, sum)
		}
	}
}

// If a layer is always sent in the same parts, the census builds no index after the first time, and
// looks up no seed in it.
func TestCensusKnowsStretches(t *testing.T) {
	var c Census
	part := func(first int) []oona.SeedID {
		return []oona.SeedID{oona.SeedID(first), oona.SeedID(first + 1)}
	}
	states := []oona.State{oona.Training, oona.Dormant}
	for range 2 {
		for first := 0; first < 8; first += 2 {
			c.Add(part(first), states)
		}
	}
	for first := 0; first < 8; first += 2 {
		if at, found := c.stretch(part(first)); !found || at != first {
			t.Errorf("the part at %d is found at %d, %v", first, at, found)
		}
		c.Add(part(first), states)
	}
}
