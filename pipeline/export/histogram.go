package export

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/morphogenetic/oona"
)

// histogram accumulates the samples of one metric over rollups. A snapshot
// shares its buckets until the next merge, which then copies them: so a scrape
// holds the lock for no longer than it takes to copy headers.
type histogram struct {
	count    uint64
	sum      float64
	zero     uint64
	positive oona.Buckets
	negative oona.Buckets
	shared   bool
}

func (h *histogram) merge(m *oona.MetricSummary) {
	h.count += uint64(m.Count)
	h.sum += m.Sum
	h.zero += m.Histogram.Zero
	h.positive = merged(h.positive, m.Histogram.Positive, h.shared)
	h.negative = merged(h.negative, m.Histogram.Negative, h.shared)
	h.shared = false
}

func (h *histogram) snapshot() histogram {
	h.shared = true
	return *h
}

// merged adds b to a, in a's memory unless that is shared or has no room for a
// bucket of b.
func merged(a, b oona.Buckets, shared bool) oona.Buckets {
	width := unionLen(a.Indexes, b.Indexes)
	if !shared && width == len(a.Indexes) {
		at := 0
		for j, index := range b.Indexes {
			for a.Indexes[at] != index {
				at++
			}
			a.Counts[at] += b.Counts[j]
		}
		return a
	}
	out := oona.Buckets{Indexes: make([]int32, 0, width), Counts: make([]uint64, 0, width)}
	i, j := 0, 0
	for i < len(a.Indexes) || j < len(b.Indexes) {
		var index int32
		var n uint64
		takeA := j == len(b.Indexes) || i < len(a.Indexes) && a.Indexes[i] <= b.Indexes[j]
		takeB := i == len(a.Indexes) || j < len(b.Indexes) && b.Indexes[j] <= a.Indexes[i]
		if takeA {
			index, n = a.Indexes[i], a.Counts[i]
			i++
		}
		if takeB {
			index = b.Indexes[j]
			n += b.Counts[j]
			j++
		}
		out.Indexes = append(out.Indexes, index)
		out.Counts = append(out.Counts, n)
	}
	return out
}

// unionLen is the number of different indexes in two ascending lists.
func unionLen(a, b []int32) int {
	n, i := len(a), 0
	for _, index := range b {
		for i < len(a) && a[i] < index {
			i++
		}
		if i == len(a) || a[i] != index {
			n++
		}
	}
	return n
}

// bound is a classic bucket's bound and what of a histogram lies at or below
// it: negative buckets from an index on, the zero bucket, positive buckets up
// to an index.
type bound struct {
	le           float64
	negativeFrom int32
	zero         bool
	positiveTo   int32
}

// newBound assigns each exponential bucket as a whole, by its own upper bound.
// That is exact where le is 0 or a positive power of two; elsewhere the samples
// of the one bucket that le divides (2.2% wide) count as above it. Below zero a
// bucket's upper bound is not part of it, so that samples equal to a negative
// power of two count as above it; and at 0 the zero bucket counts as below.
func newBound(le float64) bound {
	const all, none = math.MinInt32, math.MinInt32
	scaled := math.Log2(math.Abs(le)) * (1 << oona.HistogramSchema)
	switch {
	case le >= oona.HistogramZeroThreshold:
		return bound{le, all, true, int32(math.Floor(scaled))}
	case le <= -oona.HistogramZeroThreshold:
		return bound{le, int32(math.Ceil(scaled)) + 1, false, none}
	default:
		return bound{le, all, le >= 0, none}
	}
}

// classic returns cumulative counts for ascending bounds.
func (h *histogram) classic(bounds []bound) []*dto.Bucket {
	counts := make([]uint64, len(bounds))
	buckets := make([]dto.Bucket, len(bounds))
	out := make([]*dto.Bucket, len(bounds))
	var below uint64
	left, right := len(h.negative.Indexes), 0
	for i := range bounds {
		b := &bounds[i]
		for left > 0 && h.negative.Indexes[left-1] >= b.negativeFrom {
			left--
			below += h.negative.Counts[left]
		}
		for right < len(h.positive.Indexes) && h.positive.Indexes[right] <= b.positiveTo {
			below += h.positive.Counts[right]
			right++
		}
		counts[i] = below
		if b.zero {
			counts[i] += h.zero
		}
		buckets[i].CumulativeCount = &counts[i]
		buckets[i].UpperBound = &b.le
		out[i] = &buckets[i]
	}
	return out
}

// gapFilled is how wide a gap between buckets costs less as empty buckets than
// as a new span.
const gapFilled = 2

// spans writes buckets as Prometheus' native histograms have them: runs of
// neighbours, and each count as its difference from the one before.
func spans(b oona.Buckets) (runs []*dto.BucketSpan, deltas []int64) {
	n := 0
	for i := range b.Indexes {
		if i == 0 || b.Indexes[i]-b.Indexes[i-1] > gapFilled+1 {
			n++
		}
	}
	// One array of each part for all spans: a scrape makes thousands.
	list, offsets, lengths := make([]dto.BucketSpan, n), make([]int32, n), make([]uint32, n)
	runs = make([]*dto.BucketSpan, n)
	deltas = make([]int64, 0, len(b.Indexes)+gapFilled*n)
	at := -1
	var previous int64
	add := func(count int64) {
		deltas = append(deltas, count-previous)
		lengths[at]++
		previous = count
	}
	next := int32(0) // the index after the last one
	for i, index := range b.Indexes {
		gap := index - next
		if i == 0 || gap > gapFilled {
			at++
			offsets[at] = gap
			list[at].Offset, list[at].Length = &offsets[at], &lengths[at]
			runs[at] = &list[at]
			gap = 0
		}
		for range gap {
			add(0)
		}
		add(int64(b.Counts[i]))
		next = index + 1
	}
	return runs, deltas
}

// histogramMetric is a prometheus.Metric with classic and native buckets, which
// client_golang's constant histograms have not.
type histogramMetric struct {
	desc    *prometheus.Desc
	labels  pairs
	value   histogram // a snapshot
	created *timestamppb.Timestamp
	bounds  []bound

	exemplars []exemplar
}

// Desc implements prometheus.Metric.
func (m *histogramMetric) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *histogramMetric) Write(out *dto.Metric) error {
	schema, threshold := int32(oona.HistogramSchema), float64(oona.HistogramZeroThreshold)
	h := &dto.Histogram{
		SampleCount:      &m.value.count,
		SampleSum:        &m.value.sum,
		CreatedTimestamp: m.created,
		Bucket:           m.value.classic(m.bounds),
		Schema:           &schema,
		ZeroThreshold:    &threshold,
		ZeroCount:        &m.value.zero,
	}
	h.PositiveSpan, h.PositiveDelta = spans(m.value.positive)
	h.NegativeSpan, h.NegativeDelta = spans(m.value.negative)
	exemplify(h, m.exemplars)
	out.Label = m.labels
	out.Histogram = h
	return nil
}
