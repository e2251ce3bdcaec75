//go:build !purego

package reduce

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// blockValue returns a random float32 of any kind.
func blockValue(rng *rand.Rand) float32 {
	switch rng.IntN(8) {
	case 0:
		return float32(rng.IntN(5) - 2) // often equal, or zero
	case 1:
		return math.Float32frombits(rng.Uint32()) // perhaps NaN or infinite
	}
	return float32(rng.NormFloat64())
}

// The assembly gives the same results as the Go code, bit by bit, and writes nothing else. The test runs
// it with all instructions of this processor, and with those that every amd64 has.
func TestBlocksInAssembly(t *testing.T) {
	if !hasAVX || !hasAVX2 || !canShuffle {
		t.Logf("AVX %t, AVX2 %t, shuffles %t: not all paths are tested on this processor", hasAVX, hasAVX2, canShuffle)
	}
	testBlocksInAssembly(t)
	defer func(avx, avx2, shuffle bool) { hasAVX, hasAVX2, canShuffle = avx, avx2, shuffle }(hasAVX, hasAVX2, canShuffle)
	hasAVX, hasAVX2, canShuffle = false, false, false
	testBlocksInAssembly(t)
}

func testBlocksInAssembly(t *testing.T) {
	t.Helper()
	rng := rand.New(rand.NewPCG(21, 22))
	finite, skipped, found := 0, 0, 0
	for range 20_000 {
		values := make([]float32, rng.IntN(70))
		if rng.IntN(1000) == 0 {
			values = make([]float32, chunkSize-rng.IntN(5))
		}
		for i := range values {
			values[i] = blockValue(rng)
		}
		before := slices.Clone(values)
		shift, low, high := rng.NormFloat64(), float32(rng.NormFloat64()-3), float32(rng.NormFloat64()+3)
		if rng.IntN(4) == 0 {
			low, high = float32(math.Inf(-1)), math.MaxFloat32
		}
		x := float32(shift)
		got := sums{least: [4]float32{x, x, x, x}, greatest: [4]float32{x, x, x, x}}
		want := got
		sumFours(&got, values, shift)
		sumFoursGo(&want, values, shift)
		if sum := want.d[0] + want.d[1]; math.IsNaN(sum) || math.IsInf(sum, 0) {
			if sum := got.d[0] + got.d[1]; !math.IsNaN(sum) && !math.IsInf(sum, 0) {
				t.Fatalf("of %v the sum is %v", values, sum)
			}
		} else if finite++; !got.equal(&want) {
			t.Fatalf("of %v the sums are\n%+v, want\n%+v", values, got, want)
		}
		compareSplits(t, values)
		compareLanes(t, values)
		compareMarks(t, rng, values)
		n := firstBeyond(values, low, high)
		if m := firstBeyondGo(values, low, high); n != m {
			t.Fatalf("of %v the first beyond %v and %v is %d, want %d", values, low, high, n, m)
		}
		skipped += n
		if n < len(values) {
			found++
		}
		if !slices.EqualFunc(values, before, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Fatal("the values were changed")
		}
	}
	if finite == 0 || skipped == 0 || found == 0 {
		t.Errorf("%d blocks were finite, %d values skipped, %d found: the test compared nothing", finite, skipped, found)
	}
}

// compareLanes compares lanesOf with lanesOfGo. Both begin with the same extremes.
func compareLanes(t *testing.T, values []float32) {
	t.Helper()
	greatest, least := [8]float32{-1, 1, 3, -1, 1, 3, -1, 1}, [8]float32{1, -1, 3, 1, -1, 3, 1, -1}
	wantGreatest, wantLeast := greatest, least
	lanesOf(values, &greatest, &least)
	lanesOfGo(values, &wantGreatest, &wantLeast)
	if greatest != wantGreatest || least != wantLeast {
		t.Fatalf("of %v the extremes of lanes are %v and %v, want %v and %v", values, greatest, least, wantGreatest, wantLeast)
	}
}

// compareMarks compares the marks of random states, and the counts of marked values.
func compareMarks(t *testing.T, rng *rand.Rand, values []float32) {
	t.Helper()
	states := make([]oona.State, len(values))
	for i := range states {
		states[i] = oona.State(rng.IntN(oona.StateCount))
	}
	if rng.IntN(2) == 0 {
		values = slices.Clone(values)
		for i := range values {
			if rng.IntN(3) > 0 {
				values[i] = float32(math.NaN())
			}
		}
	}
	const guard = 32 // bytes after the marks that must not change
	marks, want := make([]uint8, len(states)+guard), make([]uint8, len(states)+guard)
	markActive(marks[:len(states)], states)
	markActiveGo(want[:len(states)], states)
	if !slices.Equal(marks, want) {
		t.Fatalf("of %v these are active: %v, want %v", states, marks, want)
	}
	if n, m := countMarkedNaN(values, marks), countMarkedNaNGo(values, marks); n != m {
		t.Fatalf("of %v and %v %d are not measured and active, want %d", values, states, n, m)
	}
}

// compareSplits compares how the finite values are split.
func compareSplits(t *testing.T, values []float32) {
	t.Helper()
	values = slices.DeleteFunc(slices.Clone(values), func(x float32) bool { return x-x != 0 })
	var got, want Scratch
	p, n := splitSigns(values, &got.positive, &got.negative)
	q, m := splitSignsGo(values, &want.positive, &want.negative)
	if p != q || n != m || !slices.Equal(got.positive[:p], want.positive[:p]) || !slices.Equal(got.negative[:n], want.negative[:n]) {
		t.Fatalf("%v is split into\n%v and %v, want\n%v and %v", values, got.positive[:p], got.negative[:n], want.positive[:q], want.negative[:m])
	}
}

// Splitting a whole chunk writes nothing beyond its ends.
func TestSplitOfAWholeChunk(t *testing.T) {
	for _, x := range []float32{1, -1} {
		var values chunk
		for i := range values {
			values[i] = x
		}
		var got struct {
			positive chunk
			between  [8]float32
			negative chunk
			behind   [8]float32
		}
		p, n := splitSigns(values[:], &got.positive, &got.negative)
		if p+n != chunkSize || p != 0 && n != 0 {
			t.Errorf("%d positive and %d negative of %d times %v", p, n, chunkSize, x)
		}
		if got.between != [8]float32{} || got.behind != [8]float32{} {
			t.Errorf("of %v something was written behind a chunk: %v, %v", x, got.between, got.behind)
		}
	}
}

// equal compares sums exactly, and the extremes over all parts together.
func (s *sums) equal(t *sums) bool {
	return s.d == t.d && s.squares == t.squares &&
		slices.Min(s.least[:]) == slices.Min(t.least[:]) && slices.Max(s.greatest[:]) == slices.Max(t.greatest[:])
}

func TestCountingInAssembly(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	ended, whole := 0, 0
	for range 20_000 {
		values := make([]float32, rng.IntN(40))
		for i := range values {
			values[i] = float32(math.Exp2(rng.NormFloat64()))
		}
		low := rawIndex(math.Float32bits(float32(math.Exp2(-1 - 3*rng.Float64()))))
		width := rng.IntN(10 * octaveBuckets)
		const guard = 64 // on either side, where nobody may write
		got, want := make([]uint32, width+2*guard), make([]uint32, width+2*guard)
		n := countBlock(got[guard:guard+width:guard+width], low, values)
		if m := countBlockGo(want[guard:guard+width:guard+width], low, values); n != m {
			t.Fatalf("of %v %d were counted, want %d", values, n, m)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("of %v the counts are\n%v, want\n%v", values, got, want)
		}
		if n < len(values) {
			ended++
		} else if n > 0 {
			whole++
		}
	}
	if ended == 0 || whole == 0 {
		t.Errorf("%d blocks ended at a value beyond, %d did not: the test compared too little", ended, whole)
	}
}

// The assembly has the numbers of bits of its shifts as literals. They must equal the constants.
func TestShiftsInAssembly(t *testing.T) {
	if zeroBits != 0x00800000 || cellBits != 17 || cellCount != 64 || bucketBits != 18 {
		t.Errorf("block_amd64.s has cells of 17 bits, 64 of them, and buckets of 18 bits; here are %d, %d, %d", cellBits, cellCount, bucketBits)
	}
}
