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
	moments     moments
	histogram   histogram
	worst       worst
}

// begin makes m ready for the first sample, keeping its buffers.
func (m *metric) begin(name string, about oona.Metric, worstSeeds int) {
	m.name, m.group = name, about.Group
	m.notMeasured, m.infinite = 0, 0
	m.moments = moments{}
	m.histogram.reset()
	m.worst = worst{direction: about.Direction, limit: worstSeeds, seeds: m.worst.seeds[:0]}
}

// add folds a column. Scratch lends memory for values that are all finite.
func (m *metric) add(seeds []oona.SeedID, ascending bool, values []float32, scratch *[]float32) {
	finite := values
	block, ok := momentsOf(values)
	if !ok {
		finite = m.separate(values, (*scratch)[:0])
		*scratch = finite
		block, _ = momentsOf(finite)
		if block.count == 0 {
			return
		}
	}
	m.moments.merge(block)
	m.histogram.add(finite, block.min, block.max)
	m.worst.add(seeds, ascending, values, block.min, block.max)
}

// separate counts NaN and infinite values and appends the others to finite.
func (m *metric) separate(values, finite []float32) []float32 {
	for _, x := range values {
		switch {
		case x != x:
			m.notMeasured++
		case x > math.MaxFloat32 || x < -math.MaxFloat32:
			m.infinite++
		default:
			finite = append(finite, x)
		}
	}
	return finite
}

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
