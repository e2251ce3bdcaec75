package export_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

// The oracle is client_golang's own histogram, which observes every sample.
func TestAccumulatedHistogramEqualsADirectOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		direct := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                         "direct",
			Buckets:                      export.DefaultConfig().Buckets,
			NativeHistogramBucketFactor:  math.Exp2(1.0 / (1 << oona.HistogramSchema)),
			NativeHistogramZeroThreshold: oona.HistogramZeroThreshold,
		})
		random := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			samples := []float64{0, 1, 0.25, -1, 1 << 20, 1 << 21, 0x1p-20, 0x1p-125, math.MaxFloat32}
			for range 200 {
				// Multiples of 2^-40 add up exactly, in whatever order.
				x := math.Round(math.Exp(3*random.NormFloat64())*0x1p20) / 0x1p20
				samples = append(samples, x, -x/2)
			}
			samples = samples[random.IntN(8):]
			f.send(rollup(oona.Health, "r", "enc.0", summarize("weight_norm", samples...)))
			for _, x := range samples {
				direct.Observe(x)
			}
			f.gather() // a scrape between two merges must not change what follows
		}
		var want dto.Metric
		if err := direct.Write(&want); err != nil {
			t.Fatal(err)
		}
		got := f.find("kasmina_layer_health").Histogram
		if err := consistent(got); err != nil {
			t.Error(err)
		}
		if got.GetSchema() != want.Histogram.GetSchema() || got.GetSchema() != 5 {
			t.Fatalf("schema %d, direct %d, want 5", got.GetSchema(), want.Histogram.GetSchema())
		}
		if got.GetSampleCount() != want.Histogram.GetSampleCount() || got.GetZeroCount() != want.Histogram.GetZeroCount() || got.GetZeroThreshold() != want.Histogram.GetZeroThreshold() {
			t.Errorf("count %d, zero %d within %g; direct %d, %d within %g", got.GetSampleCount(), got.GetZeroCount(), got.GetZeroThreshold(),
				want.Histogram.GetSampleCount(), want.Histogram.GetZeroCount(), want.Histogram.GetZeroThreshold())
		}
		if diff := math.Abs(got.GetSampleSum()/want.Histogram.GetSampleSum() - 1); diff > 1e-12 {
			t.Errorf("sum %v, direct %v", got.GetSampleSum(), want.Histogram.GetSampleSum())
		}
		if g, w := expand(got.PositiveSpan, got.PositiveDelta), expand(want.Histogram.PositiveSpan, want.Histogram.PositiveDelta); !reflect.DeepEqual(g, w) {
			t.Errorf("positive buckets %v\ndirect %v", g, w)
		}
		if g, w := expand(got.NegativeSpan, got.NegativeDelta), expand(want.Histogram.NegativeSpan, want.Histogram.NegativeDelta); !reflect.DeepEqual(g, w) {
			t.Errorf("negative buckets %v\ndirect %v", g, w)
		}
		for i, b := range want.Histogram.Bucket {
			if g := got.Bucket[i]; g.GetUpperBound() != b.GetUpperBound() || g.GetCumulativeCount() != b.GetCumulativeCount() {
				t.Errorf("le %g counts %d, direct le %g counts %d", g.GetUpperBound(), g.GetCumulativeCount(), b.GetUpperBound(), b.GetCumulativeCount())
			}
		}
		if len(got.Bucket) != len(want.Histogram.Bucket) {
			t.Errorf("%d classic buckets, direct %d", len(got.Bucket), len(want.Histogram.Bucket))
		}
	})
}

func TestClassicBoundsBetweenBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) {
			c.Buckets = []float64{-4, -1, -1e-39, 0, 1e-39, 0.1, 1, 3, 10}
		})
		// 3 lies in bucket (2.954, 3.019], which the bound 3 divides; -4 is in
		// the bucket whose upper bound is just above -4.
		f.send(rollup(oona.Health, "r", "enc.0", summarize("a", -5, -4, -2, -0.5, 0, 0.05, 1, 2.5, 3, 9, 11)))
		h := f.find("kasmina_layer_health").Histogram
		want := []uint64{1, 3, 4, 5, 5, 6, 7, 8, 10}
		for i, b := range h.Bucket {
			if b.GetCumulativeCount() != want[i] {
				t.Errorf("le %g counts %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want[i])
			}
		}
	})
}

// expand turns spans and deltas into counts by index, without empty ones.
func expand(spans []*dto.BucketSpan, deltas []int64) map[int32]int64 {
	counts := make(map[int32]int64)
	index, count := int32(0), int64(0)
	for _, span := range spans {
		index += span.GetOffset()
		for range span.GetLength() {
			count += deltas[0]
			deltas = deltas[1:]
			if count != 0 {
				counts[index] = count
			}
			index++
		}
	}
	return counts
}

// consistent checks an exposed histogram: the parts of the native form add up, and the
// classic form agrees with it at its bounds.
func consistent(h *dto.Histogram) error {
	for _, span := range append(h.PositiveSpan, h.NegativeSpan...) {
		if span.GetLength() == 0 {
			return fmt.Errorf("an empty span among %v and %v", h.PositiveSpan, h.NegativeSpan)
		}
	}
	positive, negative := expand(h.PositiveSpan, h.PositiveDelta), expand(h.NegativeSpan, h.NegativeDelta)
	total := h.GetZeroCount()
	for _, n := range positive {
		total += uint64(n)
	}
	below := h.GetZeroCount()
	for _, n := range negative {
		total += uint64(n)
		below += uint64(n)
	}
	if total != h.GetSampleCount() {
		return fmt.Errorf("native buckets hold %d samples, the count is %d", total, h.GetSampleCount())
	}
	var previous uint64
	for _, b := range h.Bucket {
		if b.GetCumulativeCount() < previous || b.GetCumulativeCount() > total {
			return fmt.Errorf("classic bucket le %g has %d after %d of %d", b.GetUpperBound(), b.GetCumulativeCount(), previous, total)
		}
		previous = b.GetCumulativeCount()
		want := below
		for index, n := range positive {
			if math.Exp2(float64(index)/32) <= b.GetUpperBound() {
				want += uint64(n)
			}
		}
		if b.GetUpperBound() >= 0 && want != b.GetCumulativeCount() {
			return fmt.Errorf("classic bucket le %g has %d, the native ones below it %d", b.GetUpperBound(), b.GetCumulativeCount(), want)
		}
	}
	return nil
}
