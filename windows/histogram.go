package windows

import (
	"math"

	"github.com/morphogenetic/oona"
)

// histogram counts finite samples in the buckets of Prometheus' native schema
// 5: bucket i holds (2^((i-1)/32), 2^(i/32)]. Samples with |x| <= 2^-126, the
// least normal float32, are in the zero bucket, as Prometheus has it.
type histogram struct {
	zero     uint64
	positive octaves
	negative octaves // of the samples with their sign turned
}

// octaves are the counts of one sign. Counts is dense over the octaves that
// were seen: counts[j] is of the bucket with raw index first+j.
type octaves struct {
	first  uint32
	counts []uint64
}

const (
	mantissaBits  = 23
	mantissaMask  = 1<<mantissaBits - 1
	signBit       = 1 << 31
	cellBits      = 6 // mantissa bits that choose a cell; a cell has at most one bucket bound
	octaveBits    = oona.HistogramSchema
	octaveBuckets = 1 << octaveBits
	exponentBias  = 127
	zeroThreshold = 1 << mantissaBits // the bits of 2^-126
)

// cells has, for each cell of the mantissa, the bucket within the octave at
// the cell's start in the bits above the mantissa's, and below them what
// carries into those bits when added to a mantissa above the bound in the cell.
var cells = makeCells()

func makeCells() [1 << cellBits]uint32 {
	var cells [1 << cellBits]uint32
	bucket := 0 // bounds below the cell's start
	for cell := range cells {
		low := uint32(cell) << (mantissaBits - cellBits)
		high := low + 1<<(mantissaBits-cellBits)
		bound := uint32(mantissaMask) // none in this cell
		base := bucket
		if b := mantissaBound(bucket); bucket < octaveBuckets && b < high {
			bound = b
			bucket++
		}
		cells[cell] = uint32(base)<<mantissaBits + (mantissaMask - bound)
	}
	return cells
}

// mantissaBound returns the greatest mantissa that is not above 2^(j/32).
func mantissaBound(j int) uint32 {
	return uint32(math.Floor((math.Exp2(float64(j)/octaveBuckets) - 1) * (1 << mantissaBits)))
}

// rawIndex returns the bucket of the absolute value with these bits, counted
// from 127 octaves below 1, so that it is never negative.
func rawIndex(bits uint32) uint32 {
	cell := cells[bits>>(mantissaBits-cellBits)&(1<<cellBits-1)]
	return bits>>mantissaBits<<octaveBits + (bits&mantissaMask+cell)>>mantissaBits
}

// add counts a block of finite values.
func (h *histogram) add(values []float32) {
	for _, x := range values {
		bits := math.Float32bits(x)
		size := bits &^ signBit
		if size <= zeroThreshold {
			h.zero++
			continue
		}
		side := &h.positive
		if bits != size {
			side = &h.negative
		}
		i := rawIndex(size)
		j := i - side.first
		if uint(j) >= uint(len(side.counts)) {
			j = side.grow(i)
		}
		side.counts[j]++
	}
}

// grow makes room for the octave of raw index i, and for all between it and
// those that are there, and returns the position of i.
func (o *octaves) grow(i uint32) uint32 {
	low := i &^ (octaveBuckets - 1)
	high := low + octaveBuckets
	if len(o.counts) > 0 {
		low = min(low, o.first)
		high = max(high, o.first+uint32(len(o.counts)))
	}
	held := len(o.counts)
	width := int(high - low)
	shift := 0
	if held > 0 {
		shift = int(o.first - low)
	}
	if width <= cap(o.counts) {
		o.counts = o.counts[:width]
		copy(o.counts[shift:], o.counts[:held])
		clear(o.counts[:shift])
		clear(o.counts[shift+held:])
	} else {
		counts := make([]uint64, width)
		copy(counts[shift:], o.counts)
		o.counts = counts
	}
	o.first = low
	return i - low
}

func (h *histogram) reset() {
	h.zero = 0
	h.positive = octaves{counts: h.positive.counts[:0]}
	h.negative = octaves{counts: h.negative.counts[:0]}
}

// appendTo writes h over the slices that dst holds.
func (h *histogram) appendTo(dst *oona.Histogram) {
	dst.Zero = h.zero
	h.positive.appendTo(&dst.Positive)
	h.negative.appendTo(&dst.Negative)
}

func (o *octaves) appendTo(dst *oona.Buckets) {
	dst.Indexes, dst.Counts = dst.Indexes[:0], dst.Counts[:0]
	for j, n := range o.counts {
		if n > 0 {
			dst.Indexes = append(dst.Indexes, int32(o.first)+int32(j)-exponentBias*octaveBuckets)
			dst.Counts = append(dst.Counts, n)
		}
	}
}
