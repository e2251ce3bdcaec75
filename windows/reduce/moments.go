package reduce

import (
	"math"
	"slices"
)

// moments are the count, sum, extremes and mean of finite samples, and the sum of their
// squared deviations from the mean.
//
// All products that are summed are written as float64(x*y), so that the compiler does
// not fuse them: the result must be the same, bit by bit, on every processor.
type moments struct {
	count     int64
	sum, mean float64
	m2        float64
	min, max  float32 // 0 where count is 0
}

// momentsOf returns the moments of a block. It returns false, and no moments, if one of
// the values is NaN or infinite.
//
// It sums the deviations from the block's first value, and their squares. This shift
// is a value of the block, so (shift-mean)^2 is at most m2, and subtracting
// count*(shift-mean)^2 from the sum of squares loses at most a factor of count+1 in
// precision, whatever the offset of the values. With a thousand values, 11 digits are
// left in the worst case, and usually 14.
func momentsOf(values []float32) (moments, bool) {
	if len(values) == 0 {
		return moments{}, true
	}
	first := values[0]
	shift := float64(first)
	block := sums{
		least:    [4]float32{first, first, first, first},
		greatest: [4]float32{first, first, first, first},
	}
	sumFours(&block, values, shift)
	for i, x := range values[len(values)&^3:] {
		block.least[i], block.greatest[i] = min(block.least[i], x), max(block.greatest[i], x)
		d := float64(x) - shift
		block.d[0] += d
		block.squares[0] += float64(d * d)
	}
	s, q := block.d[0]+block.d[1], block.squares[0]+block.squares[1]
	if math.IsNaN(s) || math.IsInf(s, 0) { // float32s cannot overflow a sum of float64s, so one of them is NaN or infinite
		return moments{}, false
	}
	n := float64(len(values))
	return moments{
		count: int64(len(values)),
		sum:   float64(shift*n) + s,
		mean:  shift + s/n,
		m2:    math.Max(0, q-float64(s*s)/n),
		min:   slices.Min(block.least[:]),
		max:   slices.Max(block.greatest[:]),
	}, true
}

// merge adds b by the formula of Chan, Golub and LeVeque, "Updating formulae
// and a pairwise algorithm for computing sample variances" (1979).
func (m *moments) merge(b moments) {
	if b.count == 0 {
		return
	}
	if m.count == 0 {
		*m = b
		return
	}
	na, nb := float64(m.count), float64(b.count)
	n := na + nb
	delta := b.mean - m.mean
	m.m2 = (m.m2 + b.m2) + float64(float64(delta*delta)*float64(na*(nb/n)))
	m.sum += b.sum
	m.mean = m.sum / n
	m.count += b.count
	m.min = min(m.min, b.min)
	m.max = max(m.max, b.max)
}

// positiveZero converts -0 to +0, so that a result does not depend on the order of
// equal values.
func positiveZero(x float64) float64 {
	if x == 0 {
		return 0
	}
	return x
}
