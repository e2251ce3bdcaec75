//go:build !purego

package windows

//go:noescape
func sumFours(s *sums, values []float32, shift float64)

//go:noescape
func countBlock(counts []uint32, first uint32, values []float32) int

//go:noescape
func splitSigns(values []float32, positive, negative *chunk) (p, n int)

//go:noescape
func skipBelow(values []float32, sign, bar float32) int

// prefetch asks for counts to be in the cache soon. With many layers they come
// from far away, and more of them are on their way at a time than if each were
// waited for when it is counted in.
//
//go:noescape
func prefetch(counts []uint32)
