package reduce

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// Options say how metrics are reduced.
type Options struct {
	Reducer    int32 // the version of the reducers, from 1
	WorstSeeds int   // how many worst seeds a metric lists
}

// Metric folds the samples of one metric of a layer's window.
type Metric struct {
	Name  string
	Group oona.Group
	holes bool // the last block had values that are not finite; it saves time to expect them

	notMeasured int64
	ofActive    int64 // how many of notMeasured were of seeds in an active state; reducer 2
	infinite    int64
	moments     moments
	histogram   histogram
	worst       worst
}

// Begin makes m ready for the first sample and keeps its memory. M is new, or
// has been Reset since its last sample.
func (m *Metric) Begin(name string, about oona.Metric, o Options) {
	m.Name, m.Group = name, about.Group
	m.notMeasured, m.ofActive, m.infinite, m.holes = 0, 0, 0, false
	m.moments = moments{}
	m.worst.begin(about.Direction, o)
}

// Reset empties m's histogram and keeps its memory, within bounds.
func (m *Metric) Reset() { m.histogram.reset() }

// Prefetch asks the processor for the memory that the next samples of these
// metrics go to.
func Prefetch(metrics []Metric) {
	for i := range metrics {
		m := &metrics[i]
		prefetch(m.histogram.positive.counts)
		prefetchExtremes(m.worst.greatest.list)
		prefetchExtremes(m.worst.least.list)
	}
}

// chunkSize is how many samples are folded at a time. They are few enough to stay in
// the first-level cache from one reducer to the next, and for the precision that
// momentsOf promises.
const chunkSize = 1024

type chunk [chunkSize]float32

// Scratch is memory for the finite samples of a chunk, and for those with each sign.
// It holds nothing between calls.
type Scratch struct{ finite, positive, negative chunk }

// Readings are what the columns of a frame have in common.
type Readings struct {
	seeds  []oona.SeedID
	states []oona.State // nil in reducer 1, which does not look at them
	offset int64        // NoOffset in reducer 1
	active []uint8      // marks of seeds in active states; made when they are needed
	marked bool
}

// Begin starts a frame. Its columns follow.
func (of *Readings) Begin(f *oona.Frame, offset int64, reducer int32) {
	of.seeds, of.states, of.offset, of.marked = f.Seeds, f.States, offset, false
	if reducer < 2 {
		of.states, of.offset = nil, oona.NoOffset
	}
}

// End drops the references to the frame's slices.
func (of *Readings) End() { of.seeds, of.states = nil, nil }

// notMeasured counts the values that are NaN and of a seed in an active state. values[i]
// is of the seed of.seeds[from+i].
func (of *Readings) notMeasured(from int, values []float32) int64 {
	if !of.marked {
		of.active = slices.Grow(of.active[:0], len(of.states))[:len(of.states)]
		markActive(of.active, of.states)
		of.marked = true
	}
	return int64(countMarkedNaN(values, of.active[from:]))
}

// Add folds a column: values[i] is of the seed of.seeds[i].
func (m *Metric) Add(of *Readings, values []float32, s *Scratch) {
	for from := 0; from < len(values); from += chunkSize {
		m.addChunk(of, from, values[from:min(from+chunkSize, len(values))], s)
	}
}

// addChunk folds a part of a column: values[i] is of the seed of.seeds[from+i].
func (m *Metric) addChunk(of *Readings, from int, values []float32, s *Scratch) {
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

// separate counts NaN and infinite values and copies the others. It has no branches:
// most seeds of a network are dormant and measure nothing, but which ones cannot be
// predicted.
func (m *Metric) separate(values []float32, to *chunk) []float32 {
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

// Summarize overwrites dst with m, and reuses the slices of dst.
func (m *Metric) Summarize(dst *oona.MetricSummary) {
	dst.Name = m.Name
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
