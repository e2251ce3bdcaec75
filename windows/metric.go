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

// readings are what the columns of a frame have in common. Reducer 1 looks
// neither at states nor at the offset.
type readings struct {
	seeds  []oona.SeedID
	states []oona.State
	offset int64
}

func readingsOf(r *Record, reducer int32) readings {
	if reducer < 2 {
		return readings{seeds: r.Frame.Seeds, offset: oona.NoOffset}
	}
	return readings{r.Frame.Seeds, r.Frame.States, r.Offset}
}

// first returns the readings of the first n seeds, and the others.
func (of readings) first(n int) (first, others readings) {
	first, others = of, of
	first.seeds, others.seeds = of.seeds[:n], of.seeds[n:]
	if of.states != nil {
		first.states, others.states = of.states[:n], of.states[n:]
	}
	return first, others
}

// add folds a column: values[i] is of the seed of.seeds[i].
func (m *metric) add(of readings, values []float32, s *scratch) {
	for len(values) > chunkSize {
		first, others := of.first(chunkSize)
		m.addChunk(first, values[:chunkSize], s)
		of, values = others, values[chunkSize:]
	}
	m.addChunk(of, values, s)
}

func (m *metric) addChunk(of readings, values []float32, s *scratch) {
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
		m.ofActive += notMeasuredActive(of.states, values)
	}
	if block.count == 0 {
		return
	}
	m.moments.merge(block)
	m.histogram.add(finite, block.min, s)
	m.worst.add(of, values, block.min, block.max)
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

// notMeasuredActive counts the values that are NaN and of a seed in an active
// state.
func notMeasuredActive(states []oona.State, values []float32) (n int64) {
	for i, x := range values {
		if x != x && states[i].Active() {
			n++
		}
	}
	return n
}

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
