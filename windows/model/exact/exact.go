// Package exact computes the moments and the histogram of samples with big numbers.
// It shares no code with the engine's reducers: tests compare them with it.
package exact

import (
	"math"
	"math/big"
	"slices"

	"github.com/morphogenetic/oona"
)

// Moments returns the sum and the mean of the values and the sum of their squared
// distances from the mean, computed with 600 bits: enough for any sum of float32s,
// and almost for the squares.
func Moments(values []float64) (sum, mean, m2 float64) {
	number := func(x float64) *big.Float { return new(big.Float).SetPrec(600).SetFloat64(x) }
	total := number(0)
	for _, x := range values {
		total.Add(total, number(x))
	}
	centre := new(big.Float).SetPrec(600).Quo(total, number(float64(len(values))))
	squares := number(0)
	for _, x := range values {
		d := number(x)
		d.Sub(d, centre)
		squares.Add(squares, d.Mul(d, d))
	}
	sum, _ = total.Float64()
	mean, _ = centre.Float64()
	m2, _ = squares.Float64()
	return sum, mean, m2
}

// Histogram counts finite values, each of them a float32.
func Histogram(values []float64) oona.Histogram {
	positive, negative := map[int32]uint64{}, map[int32]uint64{}
	var h oona.Histogram
	for _, x := range values {
		switch {
		case math.Abs(x) <= oona.HistogramZeroThreshold:
			h.Zero++
		case x > 0:
			positive[Bucket(x)]++
		default:
			negative[Bucket(-x)]++
		}
	}
	h.Positive, h.Negative = sparse(positive), sparse(negative)
	return h
}

// sparse lists the buckets that have a count, in order.
func sparse(counts map[int32]uint64) oona.Buckets {
	var b oona.Buckets
	for i := range counts {
		b.Indexes = append(b.Indexes, i)
	}
	slices.Sort(b.Indexes)
	for _, i := range b.Indexes {
		b.Counts = append(b.Counts, counts[i])
	}
	return b
}

// Bucket returns the i with 2^((i-1)/32) < x <= 2^(i/32), x a float32: the
// least i with x^32 <= 2^i, computed exactly.
func Bucket(x float64) int32 {
	power := new(big.Float).SetPrec(32 * 24).SetFloat64(x)
	for range 5 {
		power.Mul(power, power)
	}
	i := power.MantExp(nil) // x^32 = mantissa * 2^i, mantissa in [0.5, 1)
	half := new(big.Float).SetMantExp(big.NewFloat(0.5), i)
	if power.Cmp(half) == 0 {
		i--
	}
	return int32(i)
}
