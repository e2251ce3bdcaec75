package reduce

import (
	"math"

	"github.com/morphogenetic/oona"
)

// histogram counts finite samples in the buckets of Prometheus' native schema
// 5: bucket i holds (2^((i-1)/32), 2^(i/32)]. Samples with |x| <= 2^-126, the
// least normal float32, are in the zero bucket, as Prometheus has it.
type histogram struct {
	zero      uint64
	positive  octaves
	negative  octaves // of the samples with their sign turned
	uncarried uint64  // samples since counts were carried last
}

// octaves are the counts of one sign, dense over the octaves that were seen: counts[j]
// is of the bucket with raw index first+j, in addition to what has been carried. It
// grows by octaves. Counts have half the width that they need in the end, because much
// of the time is spent waiting for them to come from memory.
type octaves struct {
	first   uint32
	counts  []uint32
	carried map[uint32]uint64 // by raw index; usually nil
}

// carryAfter is how many samples any count can hold.
const carryAfter = math.MaxUint32

const (
	signBit       = 1 << 31
	mantissaBits  = 23
	exponentBias  = 127
	octaveBuckets = 1 << oona.HistogramSchema
	bucketBits    = mantissaBits - oona.HistogramSchema // an octave's linear share of the mantissa, a bucket each
	cellBits      = bucketBits - 1                      // half of that is a cell: it has at most one bucket bound
	cellCount     = 2 * octaveBuckets
	zeroBits      = 1 << mantissaBits // 2^-126
)

// corrections convert linear buckets to exponential ones. The bits of a positive
// float32, shifted right by bucketBits, are its bucket if an octave is split into equal
// parts. The correction of the mantissa's cell is added first. It makes up for the
// equal parts, and carries into the next bucket just above a bound in the cell.
var corrections = makeCorrections()

func makeCorrections() [cellCount]uint32 {
	var corrections [cellCount]uint32
	below := 0 // bounds below the cell, and so the bucket within the octave at its start
	for cell := range corrections {
		linear := cell / 2
		corrections[cell] = uint32(below-linear) << bucketBits
		bound := mantissaBound(below)
		if below < octaveBuckets && bound>>cellBits == uint32(cell) {
			within := bound & (1<<bucketBits - 1)
			corrections[cell] += 1<<bucketBits - 1 - within
			below++
		}
	}
	return corrections
}

// mantissaBound returns the greatest mantissa that is not above 2^(j/32).
func mantissaBound(j int) uint32 {
	return uint32(math.Floor((math.Exp2(float64(j)/octaveBuckets) - 1) * (1 << mantissaBits)))
}

// rawIndex returns the bucket of the absolute value with these bits. It counts from 127
// octaves below 1, so it is never negative.
func rawIndex(bits uint32) uint32 {
	return (bits + corrections[bits>>cellBits%cellCount]) >> bucketBits
}

// add counts a block of at most chunkSize finite values. The least of them is given.
func (h *histogram) add(values []float32, least float32, lent *Scratch) {
	if h.uncarried += uint64(len(values)); h.uncarried > carryAfter {
		h.positive.carry()
		h.negative.carry()
		h.uncarried = uint64(len(values))
	}
	if least > oona.HistogramZeroThreshold {
		h.positive.add(values)
		return
	}
	p, n := splitSigns(values, &lent.positive, &lent.negative)
	h.zero += uint64(len(values) - p - n)
	h.positive.add(lent.positive[:p])
	h.negative.add(lent.negative[:n])
}

// add counts values that are above the threshold of the zero bucket.
func (o *octaves) add(values []float32) {
	for {
		counted := countBlock(o.counts, o.first, values)
		if counted == len(values) {
			return
		}
		values = values[counted:]
		o.cover(rawIndex(math.Float32bits(values[0])))
	}
}

// cover makes room for the octave of raw index i, and for all octaves between it and
// the existing ones.
func (o *octaves) cover(i uint32) {
	if i-o.first < uint32(len(o.counts)) {
		return
	}
	low := i &^ (octaveBuckets - 1)
	high := low + octaveBuckets
	held, shift := len(o.counts), 0
	if held > 0 {
		low = min(low, o.first)
		high = max(high, o.first+uint32(held))
		shift = int(o.first - low)
	}
	width := int(high - low)
	if width <= cap(o.counts) {
		o.counts = o.counts[:width]
		copy(o.counts[shift:], o.counts[:held])
		clear(o.counts[:shift])
		clear(o.counts[shift+held:])
	} else {
		counts := make([]uint32, width)
		copy(counts[shift:], o.counts)
		o.counts = counts
	}
	o.first = low
}

// keptBuckets bounds the memory that a histogram keeps for its next use. It is 64
// octaves, far more than a metric spans unless something is wrong with it.
const keptBuckets = 64 * octaveBuckets

func (h *histogram) reset() {
	h.zero, h.uncarried = 0, 0
	h.positive.reset()
	h.negative.reset()
}

func (o *octaves) reset() {
	if cap(o.counts) > keptBuckets {
		o.counts = nil
	}
	o.first, o.counts, o.carried = 0, o.counts[:0], nil
}

// carry adds the counts to carried and sets them to 0.
func (o *octaves) carry() {
	if o.carried == nil {
		o.carried = make(map[uint32]uint64)
	}
	for j, n := range o.counts {
		if n > 0 {
			o.carried[o.first+uint32(j)] += uint64(n)
			o.counts[j] = 0
		}
	}
}

// appendTo overwrites dst with h, and reuses the slices of dst.
func (h *histogram) appendTo(dst *oona.Histogram) {
	dst.Zero = h.zero
	h.positive.appendTo(&dst.Positive)
	h.negative.appendTo(&dst.Negative)
}

func (o *octaves) appendTo(dst *oona.Buckets) {
	dst.Indexes, dst.Counts = dst.Indexes[:0], dst.Counts[:0]
	for j, count := range o.counts {
		i := o.first + uint32(j)
		n := uint64(count)
		if o.carried != nil {
			n += o.carried[i]
		}
		if n > 0 {
			dst.Indexes = append(dst.Indexes, int32(i)-exponentBias*octaveBuckets)
			dst.Counts = append(dst.Counts, n)
		}
	}
}
