package windows

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// metric folds the samples of one metric of a layer's window.
type metric struct {
	name        string
	group       oona.Group
	notMeasured int64
	ofActive    int64 // of notMeasured, those of seeds in an active state; reducer 2
	infinite    int64
	holes       bool // the block before had some: it saves time to expect them
	moments     moments
	histogram   histogram
	worst       worst
}

// begin makes m ready for the first sample, keeping its buffers. Its histogram is
// empty: it is reset when a window closes.
func (m *metric) begin(name string, about oona.Metric, cfg *Config) {
	m.name, m.group = name, about.Group
	m.notMeasured, m.ofActive, m.infinite, m.holes = 0, 0, 0, false
	m.moments = moments{}
	m.worst.begin(about.Direction, cfg)
}

// chunkSize is how many samples are folded at a time: few enough to stay in
// the first-level cache from one reducer to the next, and for the precision
// that momentsOf promises.
const chunkSize = 1024

type chunk [chunkSize]float32

// scratch lends memory for samples of a chunk: the finite ones, and of those the
// ones of each sign.
type scratch struct{ finite, positive, negative chunk }

// readings are what the columns of a frame have in common.
type readings struct {
	seeds  []oona.SeedID
	states []oona.State // nil in reducer 1, which does not look at them
	offset int64        // NoOffset in reducer 1
	active []uint8      // marks of seeds in active states; made where they are needed
	marked bool
}

// begin takes a frame that is folded by a version of the reducers.
func (of *readings) begin(r *Record, reducer int32) {
	of.seeds, of.states, of.offset, of.marked = r.Frame.Seeds, r.Frame.States, r.Offset, false
	if reducer < 2 {
		of.states, of.offset = nil, oona.NoOffset
	}
}

// notMeasured counts those of values that are NaN and of a seed in an active state:
// values[i] is of the seed of.seeds[from+i].
func (of *readings) notMeasured(from int, values []float32) int64 {
	if !of.marked {
		of.active = slices.Grow(of.active[:0], len(of.states))[:len(of.states)]
		markActive(of.active, of.states)
		of.marked = true
	}
	return int64(countMarkedNaN(values, of.active[from:]))
}

// add folds a column: values[i] is of the seed of.seeds[i].
func (m *metric) add(of *readings, values []float32, s *scratch) {
	for from := 0; from < len(values); from += chunkSize {
		m.addChunk(of, from, values[from:min(from+chunkSize, len(values))], s)
	}
}

// addChunk folds a part of a column: values[i] is of the seed of.seeds[from+i].
func (m *metric) addChunk(of *readings, from int, values []float32, s *scratch) {
	before := m.notMeasured
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
	if m.notMeasured > before && of.states != nil {
		m.ofActive += of.notMeasured(from, values)
	}
	if block.count == 0 {
		return
	}
	m.moments.merge(block)
	m.histogram.add(finite, block.min, s)
	m.worst.add(of.seeds[from:], of.offset, values, block.min, block.max)
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
	dst.NotMeasuredActive = m.ofActive
	dst.Infinite = m.infinite
	dst.Sum = positiveZero(m.moments.sum)
	dst.Min = positiveZero(float64(m.moments.min))
	dst.Max = positiveZero(float64(m.moments.max))
	dst.Mean = positiveZero(m.moments.mean)
	dst.M2 = m.moments.m2
	m.histogram.appendTo(&dst.Histogram)
	dst.Worst = m.worst.appendTo(dst.Worst[:0], m.moments.mean)
}
