package windows

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// Random blocks over many seeds, few or many values, in any order of seeds,
// against a map and a sort.
func TestWorstIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 400 {
		direction := []oona.Direction{oona.LowerIsBetter, oona.HigherIsBetter}[round%2]
		w := worst{direction: direction, limit: 1 + rng.IntN(6)}
		distinct := []int{1, 2, 5, 100_000}[rng.IntN(4)]
		seeds := rng.Perm(1 + rng.IntN(60))
		if rng.IntN(2) == 0 {
			slices.Sort(seeds)
		}
		of := map[oona.SeedID]float64{}
		for range 1 + rng.IntN(8) {
			var ids []oona.SeedID
			var values []float32
			least, greatest := float32(math.MaxFloat32), float32(-math.MaxFloat32)
			for _, id := range seeds {
				id := oona.SeedID(id)
				x := float32(rng.IntN(distinct) - distinct/2)
				ids, values = append(ids, id), append(values, x)
				least, greatest = min(least, x), max(greatest, x)
				before, seen := of[id]
				if !seen || (direction == oona.LowerIsBetter) == (float64(x) > before) {
					of[id] = float64(x)
				}
			}
			w.add(ids, values, least, greatest)
		}
		var want []oona.SeedValue
		for id, x := range of {
			want = append(want, oona.SeedValue{Seed: id, Value: x})
		}
		slices.SortFunc(want, func(a, b oona.SeedValue) int {
			if direction == oona.LowerIsBetter {
				return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Seed, b.Seed))
			}
			return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(a.Seed, b.Seed))
		})
		want = want[:min(len(want), w.limit)]
		if got := w.appendTo(nil); !slices.Equal(got, want) {
			t.Fatalf("round %d, direction %d:\n got %v\nwant %v", round, direction, got, want)
		}
	}
}

func TestWorstAtTheEnds(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		name      string
		direction oona.Direction
		limit     int
		want      []oona.SeedValue
	}{
		{"lower is better", oona.LowerIsBetter, 9, []oona.SeedValue{{Seed: 4, Value: 5}, {Seed: 6, Value: 0}, {Seed: math.MaxInt32, Value: -math.MaxFloat32}}},
		{"higher is better", oona.HigherIsBetter, 9, []oona.SeedValue{{Seed: math.MaxInt32, Value: -math.MaxFloat32}, {Seed: 6, Value: 0}, {Seed: 4, Value: 5}}},
		{"neutral", oona.Neutral, 9, nil},
		{"none wanted", oona.LowerIsBetter, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := worst{direction: c.direction, limit: c.limit}
			seeds := []oona.SeedID{1, 2, 3, 4, 6, math.MaxInt32}
			w.add(seeds, []float32{nan, inf, -inf, 5, float32(math.Copysign(0, -1)), -math.MaxFloat32}, -math.MaxFloat32, 5)
			got := w.appendTo(nil)
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			for _, s := range got {
				if s.Value == 0 && math.Signbit(s.Value) {
					t.Error("a zero is negative")
				}
			}
		})
	}
}
