//go:build !amd64 || purego

package windows

func sumFours(s *sums, values []float32, shift float64) { sumFoursGo(s, values, shift) }

func countBlock(counts []uint32, first uint32, values []float32) int {
	return countBlockGo(counts, first, values)
}

func splitSigns(values []float32, positive, negative *chunk) (p, n int) {
	return splitSignsGo(values, positive, negative)
}

func firstBeyond(values []float32, low, high float32) int { return firstBeyondGo(values, low, high) }

func prefetch([]uint32) {}
