package reduce

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/model/exact"
)

// indexOf returns the bucket that a histogram of one positive sample has.
func indexOf(t *testing.T, x float32) int32 {
	t.Helper()
	var h histogram
	h.add([]float32{x}, x, new(Scratch))
	var got oona.Histogram
	h.appendTo(&got)
	if got.Zero != 0 || len(got.Negative.Indexes) != 0 || len(got.Positive.Indexes) != 1 || got.Positive.Counts[0] != 1 {
		t.Fatalf("a histogram of %g is %+v", x, got)
	}
	return got.Positive.Indexes[0]
}

// TestHistogramBounds tests each bound of a bucket in each octave, and the values next to it.
func TestHistogramBounds(t *testing.T) {
	for exponent := -126; exponent <= 127; exponent++ {
		for j := range octaveBuckets {
			bound := float32(math.Ldexp(math.Exp2(float64(j)/octaveBuckets), exponent))
			for _, x := range []float32{math.Nextafter32(bound, 0), bound, math.Nextafter32(bound, math.MaxFloat32)} {
				if x <= 0x1p-126 {
					continue // the zero bucket
				}
				if got, want := indexOf(t, x), exact.Bucket(float64(x)); got != want {
					t.Fatalf("%g is in bucket %d, exactly in %d", x, got, want)
				}
			}
		}
	}
	if got, want := indexOf(t, math.MaxFloat32), int32(128*octaveBuckets); got != want {
		t.Errorf("the greatest float32 is in bucket %d, want %d", got, want)
	}
}

// TestHistogramMantissas tests every float32 in [1, 2). The buckets ascend by one, and change exactly at
// their bounds.
func TestHistogramMantissas(t *testing.T) {
	one := math.Float32bits(1)
	before := int32(-1)
	for m := range uint32(1 << mantissaBits) {
		got := int32(rawIndex(one+m)) - exponentBias*octaveBuckets
		if got == before {
			continue
		}
		x := math.Float32frombits(one + m)
		if got != before+1 || exact.Bucket(float64(x)) != got {
			t.Fatalf("from bucket %d to %d at %g, which is exactly in %d", before, got, x, exact.Bucket(float64(x)))
		}
		if m > 0 && exact.Bucket(float64(math.Float32frombits(one+m-1))) != before {
			t.Fatalf("the value below %g is not in bucket %d", x, before)
		}
		before = got
	}
	if before != octaveBuckets {
		t.Errorf("the last bucket is %d, want %d", before, octaveBuckets)
	}
}

// The table of corrections is only correct if no cell has two bounds.
func TestHistogramCells(t *testing.T) {
	for j := 1; j < octaveBuckets; j++ {
		if mantissaBound(j)>>cellBits == mantissaBound(j-1)>>cellBits {
			t.Errorf("bounds %d and %d are in one cell", j-1, j)
		}
	}
}

func TestHistogramZeroBucket(t *testing.T) {
	values := []float32{
		0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32,
		0x1.fffffcp-127, 0x1p-126, -0x1p-126, // within
		0x1.000002p-126, -0x1.000002p-126, // beyond
	}
	var h histogram
	h.add(values, -1, new(Scratch))
	var got oona.Histogram
	h.appendTo(&got)
	least := int32(-126*octaveBuckets + 1)
	if got.Zero != 7 || len(got.Positive.Indexes) != 1 || got.Positive.Indexes[0] != least || len(got.Negative.Indexes) != 1 || got.Negative.Indexes[0] != least {
		t.Errorf("%+v, want 7 in the zero bucket and one in bucket %d of either sign", got, least)
	}
}

// A histogram that grows in either direction, or reuses its memory, has the same counts as one that has
// had all octaves from the beginning.
func TestHistogramGrowth(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var h histogram
	for round := range 50 {
		h.reset()
		var all []float64
		for range 1 + rng.IntN(20) {
			block := make([]float32, 1+rng.IntN(700))
			least := float32(math.MaxFloat32)
			sign := rng.IntN(3) // all positive, all negative, mixed
			for i := range block {
				x := float32(math.Ldexp(1+rng.Float64(), rng.IntN(254)-127))
				if sign == 1 || sign == 2 && rng.IntN(2) == 0 {
					x = -x
				}
				block[i] = x
				least = min(least, x)
				all = append(all, float64(x))
			}
			h.add(block, least, new(Scratch))
		}
		got, want := oona.MetricSummary{}, oona.MetricSummary{Histogram: exact.Histogram(all)}
		h.appendTo(&got.Histogram)
		if !exact.EqualBesidesMoments(&got, &want) {
			t.Fatalf("round %d:\n got %+v\nwant %+v", round, got.Histogram, want.Histogram)
		}
	}
}

func TestHistogramLetsGoOfMemory(t *testing.T) {
	var h histogram
	h.add([]float32{1e-37, 1e38}, 1e-37, new(Scratch))
	h.reset()
	if cap(h.positive.counts) > keptBuckets {
		t.Errorf("%d buckets are kept, want at most %d", cap(h.positive.counts), keptBuckets)
	}
}

// All counts are carried before one could overflow.
func TestHistogramCarries(t *testing.T) {
	var h histogram
	h.add([]float32{1, 2, 2, -4}, -4, new(Scratch))
	h.uncarried = carryAfter - 4 // as if so many samples had been added
	h.add([]float32{1, 1, 1, 1}, 1, new(Scratch))
	if h.positive.carried != nil {
		t.Fatal("carried too early")
	}
	h.add([]float32{2}, 2, new(Scratch))
	if h.positive.carried == nil || h.negative.carried == nil {
		t.Fatal("nothing was carried")
	}
	h.add([]float32{2, 8}, 2, new(Scratch))
	if h.uncarried != 3 {
		t.Errorf("%d samples are uncarried, want 3", h.uncarried)
	}
	got, want := oona.MetricSummary{}, oona.MetricSummary{Histogram: exact.Histogram([]float64{1, 2, 2, -4, 1, 1, 1, 1, 2, 2, 8})}
	h.appendTo(&got.Histogram)
	if !exact.EqualBesidesMoments(&got, &want) {
		t.Errorf("\n got %+v\nwant %+v", got.Histogram, want.Histogram)
	}
	h.reset()
	h.add([]float32{1}, 1, new(Scratch))
	want.Histogram = exact.Histogram([]float64{1})
	h.appendTo(&got.Histogram)
	if !exact.EqualBesidesMoments(&got, &want) {
		t.Errorf("after a reset: %+v", got.Histogram)
	}
}
