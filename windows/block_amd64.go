//go:build !purego

package windows

import "golang.org/x/sys/cpu"

// canShuffle is whether splitSigns may take four values at a time.
var canShuffle = cpu.X86.HasSSSE3

// hasAVX is whether sumFours may take a four in one register, and firstBeyond
// eight values.
var hasAVX = cpu.X86.HasAVX

// gathering[mask] are the shuffles that gather those of four values whose bit is
// in mask; gathered[mask] is how many they are. Only the assembly reads them.
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

// prefetch asks for counts to be in the cache soon. With many layers they come
// from far away, and more of them are on their way at a time than if each were
// waited for when it is counted in.
//
//go:noescape
func prefetch(counts []uint32)
