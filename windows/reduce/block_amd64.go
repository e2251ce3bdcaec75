//go:build !purego

package reduce

import (
	"golang.org/x/sys/cpu"

	"github.com/morphogenetic/oona"
)

// canShuffle reports whether splitSigns may take four values at a time.
var canShuffle = cpu.X86.HasSSSE3

// hasAVX reports whether sumFours may take four values in a register, and firstBeyond
// and lanesOf eight.
var hasAVX = cpu.X86.HasAVX

// hasAVX2 reports whether countMarkedNaN may count 32 values at a time.
var hasAVX2 = cpu.X86.HasAVX2

// inOrder permutes the bytes that countMarkedNaN32 has packed into the order of the
// values.
var inOrder = [8]uint32{0, 4, 1, 5, 2, 6, 3, 7} //nolint:unused // by block_amd64.s

// gathering[mask] is the shuffle that gathers the values, of four, whose bit is set in
// mask. gathered[mask] is their number. Only the assembly reads them.
var gathering, gathered = makeGathering() //nolint:unused // by block_amd64.s

//nolint:unused // by block_amd64.s
func makeGathering() (shuffles [16][16]uint8, counts [16]uint8) {
	for mask := range shuffles {
		for value := range 4 {
			if mask>>value&1 == 0 {
				continue
			}
			for i := range 4 { // its bytes
				shuffles[mask][4*int(counts[mask])+i] = uint8(4*value + i)
			}
			counts[mask]++
		}
	}
	return shuffles, counts
}

//go:noescape
func sumFours(s *sums, values []float32, shift float64)

//go:noescape
func countBlock(counts []uint32, first uint32, values []float32) int

//go:noescape
func splitSigns(values []float32, positive, negative *chunk) (p, n int)

//go:noescape
func firstBeyond(values []float32, low, high float32) int

//go:noescape
func lanesOf(values []float32, greatest, least *[8]float32)

//go:noescape
func markActive(marks []uint8, states []oona.State)

//go:noescape
func countMarkedNaN32(values []float32, marks []uint8) int

func countMarkedNaN(values []float32, marks []uint8) int {
	if !hasAVX2 {
		return countMarkedNaNGo(values, marks)
	}
	n := len(values) &^ 31
	return countMarkedNaN32(values[:n], marks) + countMarkedNaNGo(values[n:], marks[n:])
}

// prefetchExtremes loads a list into the cache, as prefetch does with counts.
//
//go:noescape
func prefetchExtremes(list []extreme)

// prefetch asks the processor to load counts into the cache. With many layers they
// come from main memory. So more of them are loaded at a time than if each were waited
// for when it is used.
//
//go:noescape
func prefetch(counts []uint32)
