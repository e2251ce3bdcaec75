//go:build !amd64 || purego

package reduce

import "github.com/morphogenetic/oona"

func sumFours(s *sums, values []float32, shift float64) { sumFoursGo(s, values, shift) }

func countBlock(counts []uint32, first uint32, values []float32) int {
	return countBlockGo(counts, first, values)
}

func splitSigns(values []float32, positive, negative *chunk) (p, n int) {
	return splitSignsGo(values, positive, negative)
}

func firstBeyond(values []float32, low, high float32) int { return firstBeyondGo(values, low, high) }

func lanesOf(values []float32, greatest, least *[8]float32) { lanesOfGo(values, greatest, least) }

func markActive(marks []uint8, states []oona.State) { markActiveGo(marks, states) }

func countMarkedNaN(values []float32, marks []uint8) int { return countMarkedNaNGo(values, marks) }

func prefetchExtremes([]extreme) {}

func prefetch([]uint32) {}
