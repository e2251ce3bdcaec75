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

// octaves are the counts of one sign, dense over the octaves that were seen:
// counts[j] is of the bucket with raw index first+j. It grows by octaves.
type octaves struct {
	first  uint32
	counts []uint64
}

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

// corrections turn linear buckets into exponential ones. The bits of a positive
// float32, shifted right by bucketBits, are its bucket if an octave is split
// into equal shares. What is added beforehand, by cell of the mantissa, makes
// up for the shares' being equal, and carries from just above a bound in it.
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

// rawIndex returns the bucket of the absolute value with these bits, counted
// from 127 octaves below 1, so that it is never negative.
func rawIndex(bits uint32) uint32 {
	return (bits + corrections[bits>>cellBits%cellCount]) >> bucketBits
}

// add counts a block of finite values that lie between least and greatest.
func (h *histogram) add(values []float32, least, greatest float32) {
	switch {
	case least > oona.HistogramZeroThreshold:
		h.positive.add(values)
	case greatest < -oona.HistogramZeroThreshold:
		h.negative.add(values)
	default:
		h.addMixed(values)
	}
}

// addMixed sorts values by sign, a chunk at a time and without branches, which
// would be mispredicted.
func (h *histogram) addMixed(values []float32) {
	var positive, negative [256]float32
	for len(values) > 0 {
		chunk := values[:min(len(values), len(positive))]
		values = values[len(chunk):]
		p, n := uint32(0), uint32(0)
		for _, x := range chunk {
			positive[p%256], negative[n%256] = x, x
			bits := math.Float32bits(x)
			counts := (zeroBits - bits&^signBit) >> 31 // 1 above the threshold, where the difference wraps
			isNegative := counts & (bits >> 31)
			p += counts - isNegative
			n += isNegative
		}
		h.zero += uint64(len(chunk)) - uint64(p+n)
		h.positive.add(positive[:p])
		h.negative.add(negative[:n])
	}
}

// add counts values by their absolute value, which is above the threshold of
// the zero bucket.
func (o *octaves) add(values []float32) {
	first, counts := o.first, o.counts
	for _, x := range values {
		i := rawIndex(math.Float32bits(x) &^ signBit)
		j := i - first
		if uint(j) >= uint(len(counts)) {
			j = o.grow(i)
			first, counts = o.first, o.counts
		}
		counts[j]++
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

// keptBuckets bounds the memory that a histogram keeps for its next use: of
// 64 octaves, far more than a metric spans unless something is wrong with it.
const keptBuckets = 64 * octaveBuckets

func (h *histogram) reset() {
	h.zero = 0
	h.positive.reset()
	h.negative.reset()
}

func (o *octaves) reset() {
	if cap(o.counts) > keptBuckets {
		o.counts = nil
	}
	o.first, o.counts = 0, o.counts[:0]
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
