package windows

import "math"

// moments are count, sum, extremes, mean and sum of squared deviations from
// the mean of finite samples.
//
// All products that are summed are spelled float64(x*y), which keeps the
// compiler from fusing them: the result must be the same, bit by bit, under
// every GOAMD64.
type moments struct {
	count     int64
	sum, mean float64
	m2        float64
	min, max  float32 // 0 where count is 0
}

// momentsOf returns the moments of a block, and false if one of its values is
// NaN or infinite: then the moments are void.
//
// It sums deviations from the block's first value, and their squares. As the
// shift is a value of the block, (shift-mean)^2 is at most m2, so that
// subtracting count*(shift-mean)^2 from the sum of squares loses a factor of
// count+1 in precision at most, whatever the offset of the values: with a
// thousand values, 11 digits are left in the worst case, and 14 as a rule.
// Sums are made of pairs, in two lanes, which hides the latency of the
// additions.
func momentsOf(values []float32) (moments, bool) {
	if len(values) == 0 {
		return moments{}, true
	}
	shift := float64(values[0])
	least, greatest := shift, shift
	var s0, s1, q0, q1 float64
	rest := values
	for len(rest) >= 4 {
		four := rest[:4:4]
		rest = rest[4:]
		x0 := float64(four[0])
		if x0 < least {
			least = x0
		} else if x0 > greatest {
			greatest = x0
		}
		x1 := float64(four[1])
		if x1 < least {
			least = x1
		} else if x1 > greatest {
			greatest = x1
		}
		d0, d1 := x0-shift, x1-shift
		s0 += d0 + d1
		q0 += float64(d0*d0) + float64(d1*d1)
		x2 := float64(four[2])
		if x2 < least {
			least = x2
		} else if x2 > greatest {
			greatest = x2
		}
		x3 := float64(four[3])
		if x3 < least {
			least = x3
		} else if x3 > greatest {
			greatest = x3
		}
		d2, d3 := x2-shift, x3-shift
		s1 += d2 + d3
		q1 += float64(d2*d2) + float64(d3*d3)
	}
	for _, value := range rest {
		x := float64(value)
		if x < least {
			least = x
		} else if x > greatest {
			greatest = x
		}
		d := x - shift
		s0 += d
		q0 += float64(d * d)
	}
	s, q := s0+s1, q0+q1
	if math.IsNaN(s) || math.IsInf(s, 0) { // float32s cannot overflow a sum of float64s: one of them is the like
		return moments{}, false
	}
	n := float64(len(values))
	return moments{
		count: int64(len(values)),
		sum:   float64(shift*n) + s,
		mean:  shift + s/n,
		m2:    math.Max(0, q-float64(s*s)/n),
		min:   float32(least),
		max:   float32(greatest),
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

// positiveZero turns -0 into +0, so that a result does not depend on the order
// of equal values.
func positiveZero(x float64) float64 {
	if x == 0 {
		return 0
	}
	return x
}
