package reduce

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/model/exact"
)

var loss = oona.Metric{Name: "loss", Group: oona.Health, Direction: oona.LowerIsBetter}

// foldMoments divides a column into blocks, and merges their moments.
func foldMoments(t *testing.T, values []float32, block int) moments {
	t.Helper()
	var m moments
	for len(values) > 0 {
		n := min(block, len(values))
		b, finite := momentsOf(values[:n])
		if !finite {
			t.Fatalf("%v is taken as not finite", values[:n])
		}
		m.merge(b)
		values = values[n:]
	}
	return m
}

func TestMoments(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		name  string
		value func(i int) float32
	}{
		{"normal", func(int) float32 { return float32(rng.NormFloat64()) }},
		{"a great offset", func(int) float32 { return float32(1e7 + rng.NormFloat64()) }},
		{"an outlier first", func(i int) float32 {
			if i == 0 {
				return 1e30
			}
			return rng.Float32()
		}},
		{"constant", func(int) float32 { return 0.1 }},
		{"huge", func(int) float32 { return float32(rng.Float64()*2-1) * math.MaxFloat32 }},
		{"subnormal", func(int) float32 { return math.Float32frombits(rng.Uint32N(1 << 23)) }},
		{"a trend", func(i int) float32 { return float32(i) * 1e-3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 4, 5, 7, 64, 1000, 20_000} {
				values, wide := make([]float32, n), make([]float64, n)
				for i := range values {
					values[i] = c.value(i)
					wide[i] = float64(values[i])
				}
				want := oona.MetricSummary{Count: int64(n), Min: wide[0], Max: wide[0]}
				for _, x := range wide {
					want.Min, want.Max = min(want.Min, x), max(want.Max, x)
				}
				want.Sum, want.Mean, want.M2 = exact.Moments(wide)
				for _, block := range []int{1, 3, 8, 1000, chunkSize} {
					m := foldMoments(t, values, block)
					got := oona.MetricSummary{Count: m.count, Sum: m.sum, Min: float64(m.min), Max: float64(m.max), Mean: m.mean, M2: m.m2}
					if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max {
						t.Fatalf("%d values in blocks of %d: %+v, want %+v", n, block, got, want)
					}
					if err := exact.CompareMoments(&got, &want); err != nil {
						t.Fatalf("%d values in blocks of %d: %v", n, block, err)
					}
				}
			}
		})
	}
}

// A block with a value that is not finite has no moments, wherever in the block the value is.
func TestMomentsNoticeWhatIsNotFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for n := 1; n <= 9; n++ {
			for at := range n {
				values := make([]float32, n)
				values[at] = float32(bad)
				if _, finite := momentsOf(values); finite {
					t.Errorf("%g at %d of %d is taken as finite", bad, at, n)
				}
			}
		}
	}
	both := []float32{float32(math.Inf(1)), float32(math.Inf(-1))}
	if _, finite := momentsOf(both); finite {
		t.Error("two infinities are taken as finite")
	}
	greatest := []float32{math.MaxFloat32, -math.MaxFloat32, math.MaxFloat32, -math.MaxFloat32, math.MaxFloat32}
	if _, finite := momentsOf(greatest); !finite {
		t.Error("the greatest float32s are taken as not finite")
	}
}

func TestMetricCountsWhatIsNotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	var m Metric
	var lent Scratch
	m.Begin("loss", loss, Options{WorstSeeds: 5, Reducer: 2})
	m.Add(&Readings{seeds: []oona.SeedID{0, 1, 2, 3, 4}, states: []oona.State{oona.Training, oona.Training, oona.Training, oona.Training, oona.Dormant}}, []float32{nan, inf, -inf, 2, nan}, &lent)
	m.Add(&Readings{seeds: []oona.SeedID{0, 1}, states: []oona.State{oona.FineTuning, oona.Grafting}}, []float32{nan, -inf}, &lent)
	var s oona.MetricSummary
	m.Summarize(&s)
	if s.Count != 1 || s.NotMeasured != 3 || s.NotMeasuredActive != 2 || s.Infinite != 3 || s.Sum != 2 || s.Mean != 2 || s.M2 != 0 || s.Min != 2 || s.Max != 2 || len(s.Worst) != 1 {
		t.Errorf("%+v, want one sample of 2, 3 not measured, 2 of these of active seeds, 3 infinite", s)
	}
	m.Begin("loss", loss, Options{WorstSeeds: 5, Reducer: 2})
	m.Add(&Readings{seeds: []oona.SeedID{0}}, []float32{nan}, &lent)
	m.Summarize(&s)
	if s.Count != 0 || s.NotMeasured != 1 || s.NotMeasuredActive != 0 || s.Infinite != 0 || s.Min != 0 || s.Max != 0 || s.Sum != 0 || len(s.Worst) != 0 {
		t.Errorf("%+v, want one sample that was not measured and nothing else", s)
	}
}

// A column that is longer than a chunk is folded in several chunks. Each may have values that are not
// finite.
func TestMetricOfManyChunks(t *testing.T) {
	const n = 2*chunkSize + 100
	seeds, values := make([]oona.SeedID, n), make([]float32, n)
	for i := range values {
		seeds[i], values[i] = oona.SeedID(i), float32(i)
	}
	values[0], values[chunkSize], values[n-1] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))
	var m Metric
	var lent Scratch
	m.Begin("loss", loss, Options{WorstSeeds: 2, Reducer: 2})
	m.Add(&Readings{seeds: seeds}, values, &lent)
	var s oona.MetricSummary
	m.Summarize(&s)
	if s.Count != n-3 || s.NotMeasured != 1 || s.Infinite != 2 || s.Min != 1 || s.Max != n-2 || s.Sum != (n-1)*n/2-chunkSize-(n-1) || s.Worst[0] != (oona.SeedValue{Seed: n - 2, Value: n - 2}) {
		t.Errorf("%+v", s)
	}
}

// No result is a negative zero, which would show as "-0".
func TestMetricHasNoNegativeZero(t *testing.T) {
	zero := float32(math.Copysign(0, -1))
	var m Metric
	var lent Scratch
	m.Begin("loss", loss, Options{WorstSeeds: 1, Reducer: 2})
	m.Add(&Readings{seeds: []oona.SeedID{0, 1}}, []float32{zero, zero}, &lent)
	var s oona.MetricSummary
	m.Summarize(&s)
	for _, x := range []float64{s.Sum, s.Min, s.Max, s.Mean, s.M2, s.Worst[0].Value} {
		if x != 0 || math.Signbit(x) {
			t.Errorf("%+v has %g, want 0", s, x)
		}
	}
}
