package reduce

import (
	"math"

	"github.com/morphogenetic/oona"
)

// This file has the loops over a block's samples in which an engine spends most of
// its time, in Go. block_amd64.s has the same loops for amd64, with several samples
// at a time, and the tests compare the two bit by bit. The build tag purego selects
// Go everywhere.

// sums are the sums and extremes of a block's samples. The samples are taken in fours
// x0, x1, x2, x3. With d as a sample's difference from a shift, d[0] is the sum of all
// d0+d1, and d[1] the sum of all d2+d3; squares are the same sums of the squares. This
// order is a part of a rollup's content. The extremes are in several parts, whose order
// does not matter.
type sums struct {
	d, squares      [2]float64
	least, greatest [4]float32
}

// sumFoursGo adds the fours in values. Up to three samples may remain. If a sample is
// NaN, the sums are NaN and the extremes are undefined.
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

// countBlockGo counts values that are above the zero bucket. counts[0] is the count of
// raw index first. It stops at a value that has no count, and returns how many values
// it has counted.
//
// Four indexes are computed before their counts are changed, so that they do not wait
// for one another.
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

// splitSignsGo writes the values above the zero bucket to positive, and the values
// below it, with their sign reversed, to negative. There are at most chunkSize values,
// all of them finite. It returns how many there are of each; the others are in the
// zero bucket. There are no branches, because they would be mispredicted.
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

// firstBeyondGo returns the index of the first value that is at most low or at least
// high, or len(values) if there is no such value. NaN is neither.
func firstBeyondGo(values []float32, low, high float32) int {
	for i, x := range values {
		if x >= high || x <= low {
			return i
		}
	}
	return len(values)
}

// lanesOfGo updates the extremes of eight lanes: values[i] is in lane i%8. Up to seven
// values at the end are left out. NaN changes no extreme.
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

// activeMarks[s] has all bits set if state s is active. There are at most 16 states.
var activeMarks = makeActiveMarks()

func makeActiveMarks() (marks [16]uint8) {
	for s := range oona.StateCount {
		if oona.State(s).Active() {
			marks[s] = math.MaxUint8
		}
	}
	return marks
}

// markActiveGo sets all bits of marks[i] if states[i] is active, and clears them if it
// is not.
func markActiveGo(marks []uint8, states []oona.State) {
	for i, s := range states {
		marks[i] = activeMarks[s%16]
	}
}

// countMarkedNaNGo counts the values that are NaN and marked. There are at most
// chunkSize values.
func countMarkedNaNGo(values []float32, marks []uint8) (n int) {
	for i, x := range values {
		if x != x {
			n += int(marks[i] & 1)
		}
	}
	return n
}
