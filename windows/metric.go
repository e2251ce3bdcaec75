package windows

import (
	"math"

	"github.com/morphogenetic/oona"
)

// metric folds the samples of one metric of a layer's window.
type metric struct {
	name        string
	group       oona.Group
	notMeasured int64
	infinite    int64
	holes       bool // the block before had some: it saves time to expect them
	moments     moments
	histogram   histogram
	worst       worst
}

// begin makes m ready for the first sample, keeping its buffers. Its histogram is
// empty: it is reset when a window closes.
func (m *metric) begin(name string, about oona.Metric, worstSeeds int) {
	m.name, m.group = name, about.Group
	m.notMeasured, m.infinite, m.holes = 0, 0, false
	m.moments = moments{}
	m.worst = worst{direction: about.Direction, limit: worstSeeds, seeds: m.worst.seeds[:0]}
}

// chunkSize is how many samples are folded at a time: few enough to stay in
// the first-level cache from one reducer to the next, and for the precision
// that momentsOf promises.
const chunkSize = 1024

type chunk [chunkSize]float32

// scratch lends memory for samples of a chunk: the finite ones, and of those the
// ones of each sign.
type scratch struct{ finite, positive, negative chunk }

// add folds a column: values[i] is of seeds[i].
func (m *metric) add(seeds []oona.SeedID, values []float32, s *scratch) {
	for len(values) > chunkSize {
		m.addChunk(seeds[:chunkSize], values[:chunkSize], s)
		seeds, values = seeds[chunkSize:], values[chunkSize:]
	}
	m.addChunk(seeds, values, s)
}

func (m *metric) addChunk(seeds []oona.SeedID, values []float32, s *scratch) {
	finite := values
	if m.holes {
		finite = m.separate(values, &s.finite)
	}
	block, ok := momentsOf(finite)
	if !ok {
		finite = m.separate(values, &s.finite)
		block, _ = momentsOf(finite)
	}
	m.holes = len(finite) < len(values)
	if block.count == 0 {
		return
	}
	m.moments.merge(block)
	m.histogram.add(finite, block.min, s)
	m.worst.add(seeds, values, block.min, block.max)
}

// separate counts NaN and infinite values and copies the others, without
// branches: most seeds of a network are dormant and measure nothing, but nobody
// knows which is next.
func (m *metric) separate(values []float32, to *chunk) []float32 {
	finite, nan := 0, 0
	for _, x := range values {
		to[finite%chunkSize] = x
		size := math.Float32bits(x) &^ signBit
		finite += int((size - infinityBits) >> 31) // 1 where it is below, and the difference wraps
		nan += int((infinityBits - size) >> 31)
	}
	m.notMeasured += int64(nan)
	m.infinite += int64(len(values) - finite - nan)
	return to[:finite]
}

const infinityBits = 0x7f800000

// summarize writes m over dst, reusing the slices that dst holds.
func (m *metric) summarize(dst *oona.MetricSummary) {
	dst.Name = m.name
	dst.Count = m.moments.count
	dst.NotMeasured = m.notMeasured
	dst.Infinite = m.infinite
	dst.Sum = positiveZero(m.moments.sum)
	dst.Min = positiveZero(float64(m.moments.min))
	dst.Max = positiveZero(float64(m.moments.max))
	dst.Mean = positiveZero(m.moments.mean)
	dst.M2 = m.moments.m2
	m.histogram.appendTo(&dst.Histogram)
	dst.Worst = m.worst.appendTo(dst.Worst[:0])
}
