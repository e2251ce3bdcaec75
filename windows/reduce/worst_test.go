package reduce

import (
	"cmp"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// worstCase has the samples of a metric, in the order of the log.
type worstCase struct {
	direction oona.Direction
	limit     int
	mean      float64
	samples   []oona.SeedValue
}

// want sorts the samples, the worst first, and returns each seed once.
func (c *worstCase) want() (list []oona.SeedValue) {
	badness := func(x float64) *big.Float {
		b := new(big.Float).SetPrec(600).SetFloat64(x)
		switch c.direction {
		case oona.HigherIsBetter:
			return b.Neg(b)
		case oona.Neutral:
			return b.Abs(b.Sub(b, big.NewFloat(c.mean)))
		}
		return b
	}
	sorted := slices.Clone(c.samples)
	slices.SortStableFunc(sorted, func(a, b oona.SeedValue) int {
		return cmp.Or(badness(b.Value).Cmp(badness(a.Value)), cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.Value, a.Value))
	})
	for _, s := range sorted {
		if len(list) < c.limit && !slices.ContainsFunc(list, func(t oona.SeedValue) bool { return t.Seed == s.Seed }) {
			list = append(list, s)
		}
	}
	return list
}

// TestWorstIsExact compares the list with a sort of all samples. Blocks are random: they have many
// seeds in any order, and few or many different values. The mean is anywhere among the values, or at the
// same distance from two of them.
func TestWorstIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for round := range 3000 {
		c := worstCase{direction: []oona.Direction{oona.LowerIsBetter, oona.HigherIsBetter, oona.Neutral}[round%3], limit: 1 + rng.IntN(6)}
		var w worst
		w.begin(c.direction, Options{WorstSeeds: c.limit, Reducer: 2})
		distinct := []int{1, 2, 5, 100_000}[rng.IntN(4)]
		scale := []float64{1, 1, 0x1p-140, 0x1p100}[rng.IntN(4)]
		holes := []int{2, 20, math.MaxInt}[rng.IntN(3)]
		seeds := rng.Perm(1 + rng.IntN(200))
		if rng.IntN(2) == 0 {
			slices.Sort(seeds)
		}
		for block := range 1 + rng.IntN(8) {
			var ids []oona.SeedID
			var values []float32
			least, greatest := float32(math.MaxFloat32), float32(-math.MaxFloat32)
			for _, id := range seeds {
				x := float32(scale * float64(rng.IntN(distinct)-distinct/2))
				if rng.IntN(20) == 0 {
					x = float32(rng.IntN(3) - 1)
				}
				if rng.IntN(holes) == 0 {
					ids, values = append(ids, oona.SeedID(id)), append(values, []float32{nan, nan, inf, -inf}[rng.IntN(4)])
					continue
				}
				ids, values = append(ids, oona.SeedID(id)), append(values, x)
				least, greatest = min(least, x), max(greatest, x)
				c.samples = append(c.samples, oona.SeedValue{Seed: oona.SeedID(id), Value: positiveZero(float64(x)), Offset: int64(block)})
			}
			if least <= greatest {
				w.add(ids, int64(block), values, least, greatest)
			}
		}
		if len(c.samples) == 0 {
			continue
		}
		a, b := c.samples[rng.IntN(len(c.samples))].Value, c.samples[rng.IntN(len(c.samples))].Value
		c.mean = (a + b) / 2
		if rng.IntN(3) == 0 {
			c.mean = a + rng.NormFloat64()
		}
		if got, want := w.appendTo(nil, c.mean), c.want(); !slices.Equal(got, want) {
			t.Fatalf("round %d, direction %d, mean %v:\n got %v\nwant %v", round, c.direction, c.mean, got, want)
		}
	}
}

// Two values are on either side of the mean. Their distances from it are equal after rounding, but not
// exactly.
func TestFartherIsExact(t *testing.T) {
	type value struct {
		seed oona.SeedID
		x    float32
	}
	const tiny = 0x1p-149
	for _, c := range []struct {
		name      string
		high, low value
		mean      float64
		above     bool
	}{
		{"above", value{1, 3}, value{2, 0}, 1, true},
		{"below", value{1, 2}, value{2, -1}, 1, false},
		{"equally far, the lower seed above", value{1, 2}, value{2, 0}, 1, true},
		{"equally far, the lower seed below", value{2, 2}, value{1, 0}, 1, false},
		{"equally far, the same seed", value{1, 2}, value{1, 0}, 1, true},
		{"above by less than a rounding", value{2, 0x1p100}, value{1, tiny}, 0x1p99, true},
		{"below by less than a rounding", value{1, 0x1p100}, value{2, -tiny}, 0x1p99, false},
		{"the greatest", value{1, math.MaxFloat32}, value{2, -math.MaxFloat32}, 0, true},
	} {
		high, low := extreme{c.high.x, c.high.seed, 0}, extreme{-c.low.x, c.low.seed, 0}
		if got := fartherAbove(high, low, c.mean); got != c.above {
			t.Errorf("%s: %t, want %t", c.name, got, c.above)
		}
	}
}

func TestWorstAtTheEnds(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	const last = math.MaxInt32
	entry := func(seed oona.SeedID, x float64) oona.SeedValue {
		return oona.SeedValue{Seed: seed, Value: x, Offset: 8}
	}
	for _, c := range []struct {
		name      string
		direction oona.Direction
		limit     int
		reducer   int32
		want      []oona.SeedValue
	}{
		{"lower is better", oona.LowerIsBetter, 9, 1, []oona.SeedValue{entry(4, 5), entry(6, 0), entry(last, -math.MaxFloat32)}},
		{"higher is better", oona.HigherIsBetter, 9, 1, []oona.SeedValue{entry(last, -math.MaxFloat32), entry(6, 0), entry(4, 5)}},
		{"neutral", oona.Neutral, 9, 2, []oona.SeedValue{entry(last, -math.MaxFloat32), entry(4, 5), entry(6, 0)}},
		{"one of a neutral", oona.Neutral, 1, 2, []oona.SeedValue{entry(last, -math.MaxFloat32)}},
		{"neutral, reducer 1", oona.Neutral, 9, 1, nil},
		{"none wanted", oona.LowerIsBetter, 0, 2, nil},
		{"none wanted of a neutral", oona.Neutral, 0, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w worst
			w.begin(c.direction, Options{WorstSeeds: c.limit, Reducer: c.reducer})
			w.add([]oona.SeedID{1, 2, 3, 4, 6, last}, 8, []float32{nan, inf, -inf, 5, float32(math.Copysign(0, -1)), -math.MaxFloat32}, -math.MaxFloat32, 5)
			got := w.appendTo(nil, -1)
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
