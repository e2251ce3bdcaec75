package reduce

import (
	"math"

	"github.com/morphogenetic/oona"
)

// The loops over a block's samples in which an engine spends most of its time.
// They stand here in Go; block_amd64.s has the same for amd64, four samples at
// a time, and the tests hold one against the other, bit by bit. The build tag
// purego chooses Go everywhere.

// sums are what a block's samples come to, in fours x0, x1, x2, x3, where d is a
// sample's difference from a shift: d[0] is the sum of the fours' d0+d1, d[1]
// that of d2+d3, squares the same of the squares. This order is part of a
// rollup's content. The extremes are in several parts; the order is of no
// importance there.
type sums struct {
	d, squares      [2]float64
	least, greatest [4]float32
}

// sumFoursGo adds the fours that are in values; up to three samples may remain.
// Of samples that are NaN the sums are NaN, and the extremes anything.
func sumFoursGo(s *sums, values []float32, shift float64) {
	least, greatest := float64(s.least[0]), float64(s.greatest[0])
	s0, s1, q0, q1 := s.d[0], s.d[1], s.squares[0], s.squares[1]
	for len(values) >= 4 {
		four := values[:4:4]
		values = values[4:]
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
	s.least[0], s.greatest[0] = float32(least), float32(greatest)
	s.d, s.squares = [2]float64{s0, s1}, [2]float64{q0, q1}
}

// countBlockGo counts values, all above the zero bucket, in counts, of which the
// first is of raw index first. It ends at a value that is not within, and
// returns how many it has counted.
//
// Four indexes are made before their counts are touched, so that they need not
// wait for one another.
func countBlockGo(counts []uint32, first uint32, values []float32) int {
	counted, n := 0, uint(len(counts))
	for ; len(values)-counted >= 4; counted += 4 {
		four := values[counted:][:4:4]
		i0 := uint(rawIndex(math.Float32bits(four[0])) - first)
		i1 := uint(rawIndex(math.Float32bits(four[1])) - first)
		i2 := uint(rawIndex(math.Float32bits(four[2])) - first)
		i3 := uint(rawIndex(math.Float32bits(four[3])) - first)
		if i0 >= n || i1 >= n || i2 >= n || i3 >= n {
			break
		}
		counts[i0]++
		counts[i1]++
		counts[i2]++
		counts[i3]++
	}
	for ; counted < len(values); counted++ {
		i := uint(rawIndex(math.Float32bits(values[counted])) - first)
		if i >= n {
			break
		}
		counts[i]++
	}
	return counted
}

// splitSignsGo writes the values, at most chunkSize and finite, that are above
// the zero bucket to positive and those that are below it, with their sign
// turned, to negative. It returns how many there are of each; the rest is in
// the zero bucket. There are no branches, as they would be mispredicted.
func splitSignsGo(values []float32, positive, negative *chunk) (p, n int) {
	for _, x := range values {
		bits := math.Float32bits(x)
		positive[p%chunkSize], negative[n%chunkSize] = x, math.Float32frombits(bits&^signBit)
		beyond := (zeroBits - bits&^signBit) >> 31 // 1 beyond the zero bucket, where the difference wraps
		below := beyond & (bits >> 31)
		p += int(beyond - below)
		n += int(below)
	}
	return p, n
}

// firstBeyondGo returns where the first value is that is at most low or at least
// high, and len(values) where there is none. NaN is neither.
func firstBeyondGo(values []float32, low, high float32) int {
	for i, x := range values {
		if x >= high || x <= low {
			return i
		}
	}
	return len(values)
}

// lanesOfGo carries on the extremes of eight lanes: values[i] is in lane i%8. Up
// to seven values at the end are left out. NaN is in no lane.
func lanesOfGo(values []float32, greatest, least *[8]float32) {
	for ; len(values) >= 8; values = values[8:] {
		for i, x := range values[:8] {
			if x > greatest[i] {
				greatest[i] = x
			}
			if x < least[i] {
				least[i] = x
			}
		}
	}
}

// activeMarks is all bits for an active state. There are at most 16 states.
var activeMarks = makeActiveMarks()

func makeActiveMarks() (marks [16]uint8) {
	for s := range oona.StateCount {
		if oona.State(s).Active() {
			marks[s] = math.MaxUint8
		}
	}
	return marks
}

// markActiveGo sets all bits of marks[i] where states[i] is active, and none where
// it is not.
func markActiveGo(marks []uint8, states []oona.State) {
	for i, s := range states {
		marks[i] = activeMarks[s%16]
	}
}

// countMarkedNaNGo counts the values that are NaN and marked. There are at most
// chunkSize.
func countMarkedNaNGo(values []float32, marks []uint8) (n int) {
	for i, x := range values {
		if x != x {
			n += int(marks[i] & 1)
		}
	}
	return n
}
