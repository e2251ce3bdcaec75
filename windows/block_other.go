//go:build !amd64 || purego

package windows

func sumFours(s *sums, values []float32, shift float64) { sumFoursGo(s, values, shift) }

func countBlock(counts []uint32, first uint32, values []float32) int {
	return countBlockGo(counts, first, values)
}

func splitSigns(values []float32, positive, negative *chunk) (p, n int) {
	return splitSignsGo(values, positive, negative)
}

func skipBelow(values []float32, sign, bar float32) int { return skipBelowGo(values, sign, bar) }

func prefetch([]uint32) {}
