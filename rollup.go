package oona

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
)

// Trigger identifies a rollup within its partition: the position of the record
// that closed the window, and an index among the rollups that this record
// triggered. Triggers ascend in the order of emission. This holds even if the
// log was lost or made again, as its incarnation is then greater.
type Trigger struct {
	Incarnation Incarnation // incarnation of the input log at the record
	Offset      int64       // offset of the input record
	Index       int32       // counts from 0; both rollups of a layer have the same index
}

// After reports whether t was emitted after u on the same partition.
func (t Trigger) After(u Trigger) bool {
	return cmp.Or(cmp.Compare(t.Incarnation, u.Incarnation), cmp.Compare(t.Offset, u.Offset), cmp.Compare(t.Index, u.Index)) > 0
}

// WindowKind says how the windows of a rollup follow one another.
type WindowKind int32

// The kinds of windows. Their ordinals are on the wire.
const (
	Tumbling WindowKind = iota // a window begins where the previous one ends
	Hopping                    // a window begins every hop
	Session                    // a window ends after a gap without frames
)

func (k WindowKind) String() string {
	switch k {
	case Tumbling:
		return "tumbling"
	case Hopping:
		return "hopping"
	case Session:
		return "session"
	}
	return fmt.Sprintf("WindowKind(%d)", int32(k))
}

// Rollup is the content of one window of one layer: a LayerHealth or a
// LayerPerformance, depending on Group. It depends only on the records of the
// log, so it is the same, byte for byte, each time that it is computed.
type Rollup struct {
	Group      Group
	Run        RunID
	Layer      LayerID
	Timeline   TimelineID
	Start, End Micros // event time, End excluded
	Trigger    Trigger
	Watermark  Micros // the timeline's, before the trigger
	// FirstOffset and LastOffset are the offsets of the first and the last
	// record that was folded. Records of other layers may lie between them.
	FirstOffset, LastOffset int64
	Frames                  int64
	Readings                int64
	Duplicates              int64 // repeats dropped while the window was open
	Generation              int32 // generation of the configuration
	// Reducer is the version of the reducers that made the rollup, from 1.
	// Fields marked "since reducer 2" are zero in version 1.
	Reducer   int32
	Catalogue CatalogueHash // catalogue of the configuration; may be zero
	Kind      WindowKind
	Hop       Micros // between the starts of two windows; 0 for Tumbling and Session
	Seeds     SeedCensus
	Rates     Rates
	Metrics   []MetricSummary // metrics of Group, ordered by name
	Hash      uint64          // ContentHash of the rest
}

// SeedCensus counts the seeds of a layer by the last state that each had in the
// window. It is zero in LayerPerformance.
type SeedCensus struct {
	Seen    int64
	Active  int64
	ByState [StateCount]int64
}

// Rates are the speeds of a layer. They are zero in LayerHealth.
type Rates struct {
	FramesPerSecond   float64 // frames over the window's length
	ReadingsPerSecond float64
	// StepsPerSecond is Steps over StepTime. If StepTime is 0, the speed is not
	// known and StepsPerSecond is 0. In reducer 1, it is the greatest step less
	// the least, over the time between the first and the last observation.
	StepsPerSecond float64
	// Steps is the sum of the rises of the step from one frame of a producer
	// to its next, and StepTime is the event time between these frames. Since
	// reducer 2.
	Steps    int64
	StepTime Micros
	// Delay is the time from the window's last observation to the append of the
	// record that triggered the rollup.
	Delay Micros
}

// MetricSummary summarises the samples of one metric. NaN samples are counted in
// NotMeasured and infinities in Infinite; the other fields exclude both.
type MetricSummary struct {
	Name        string
	Count       int64
	NotMeasured int64
	Infinite    int64
	Sum         float64
	Min, Max    float64 // 0 if Count is 0
	Mean        float64
	M2          float64 // sum of squared deviations from Mean
	Histogram   Histogram
	// Worst lists the worst seeds, worst first. For a Neutral metric, these are
	// the seeds farthest from Mean; since reducer 2.
	Worst []SeedValue
	// NotMeasuredActive counts the NaN samples of seeds in an active state.
	// Since reducer 2.
	NotMeasuredActive int64
}

// SpeedKnown reports whether StepsPerSecond is known: whether the window had two
// frames of one producer between which the step did not fall. For reducer 1 it
// is always true.
func (r *Rollup) SpeedKnown() bool { return r.Reducer < 2 || r.Rates.StepTime > 0 }

// StdDev returns the population standard deviation, or 0 if Count is 0.
func (s *MetricSummary) StdDev() float64 {
	if s.Count == 0 {
		return 0
	}
	return math.Sqrt(s.M2 / float64(s.Count))
}

// SeedValue is a seed and its worst value in the window.
type SeedValue struct {
	Seed   SeedID
	Value  float64
	Offset int64 // offset of the frame with the value; NoOffset in reducer 1
}

// HistogramSchema is the schema of Prometheus' native histograms: 32 buckets per
// octave, so that the error of a quantile is at most 1.1% of its value.
const HistogramSchema = 5

// HistogramZeroThreshold bounds the zero bucket: the least normal float32.
const HistogramZeroThreshold = 0x1p-126

// Histogram counts samples in exponential buckets. Bucket i of Positive counts
// samples in (2^((i-1)/32), 2^(i/32)], and bucket i of Negative those whose
// negation is in this interval. Zero counts samples within
// HistogramZeroThreshold of 0.
type Histogram struct {
	Zero     uint64
	Positive Buckets
	Negative Buckets
}

// Buckets are the non-empty buckets of one sign: Counts[j] is the count of bucket
// Indexes[j]. Indexes ascend.
type Buckets struct {
	Indexes []int32
	Counts  []uint64
}

// ContentHash returns the first eight bytes of the SHA-256 of all fields but
// Hash and the trigger's incarnation, in a fixed binary form. Since reducer 2,
// the fields that came with it follow the others.
func (r *Rollup) ContentHash() uint64 {
	w := hashWriter{h: sha256.New()}
	w.int(int64(r.Group))
	w.text(string(r.Run))
	w.text(string(r.Layer))
	w.text(string(r.Timeline))
	for _, v := range [...]int64{
		int64(r.Start), int64(r.End), r.Trigger.Offset, int64(r.Trigger.Index), int64(r.Watermark),
		r.FirstOffset, r.LastOffset, r.Frames, r.Readings, r.Duplicates, int64(r.Generation),
		r.Seeds.Seen, r.Seeds.Active, int64(r.Rates.Delay),
	} {
		w.int(v)
	}
	for _, v := range r.Seeds.ByState {
		w.int(v)
	}
	w.float(r.Rates.FramesPerSecond)
	w.float(r.Rates.ReadingsPerSecond)
	w.float(r.Rates.StepsPerSecond)
	w.int(int64(len(r.Metrics)))
	for i := range r.Metrics {
		w.metric(&r.Metrics[i])
	}
	if r.Reducer >= 2 {
		w.second(r)
	}
	w.flush()
	return binary.BigEndian.Uint64(w.h.Sum(nil))
}

// hashWriter writes fixed-width fields and length-prefixed texts, so that
// different rollups have different binary forms.
type hashWriter struct {
	h   hash.Hash
	buf [512]byte
	n   int
}

func (w *hashWriter) int(v int64) {
	if w.n+8 > len(w.buf) {
		w.flush()
	}
	binary.BigEndian.PutUint64(w.buf[w.n:], uint64(v))
	w.n += 8
}

func (w *hashWriter) float(v float64) { w.int(int64(math.Float64bits(v))) }

func (w *hashWriter) text(s string) {
	w.int(int64(len(s)))
	for len(s) > 0 {
		if w.n == len(w.buf) {
			w.flush()
		}
		n := copy(w.buf[w.n:], s)
		w.n += n
		s = s[n:]
	}
}

func (w *hashWriter) flush() {
	w.h.Write(w.buf[:w.n]) // never fails
	w.n = 0
}

func (w *hashWriter) metric(m *MetricSummary) {
	w.text(m.Name)
	w.int(m.Count)
	w.int(m.NotMeasured)
	w.int(m.Infinite)
	for _, v := range [...]float64{m.Sum, m.Min, m.Max, m.Mean, m.M2} {
		w.float(v)
	}
	w.int(int64(m.Histogram.Zero))
	w.buckets(&m.Histogram.Positive)
	w.buckets(&m.Histogram.Negative)
	w.int(int64(len(m.Worst)))
	for _, s := range m.Worst {
		w.int(int64(s.Seed))
		w.float(s.Value)
	}
}

// second writes the fields that came with reducer 2.
func (w *hashWriter) second(r *Rollup) {
	w.int(int64(r.Reducer))
	w.int(int64(binary.BigEndian.Uint64(r.Catalogue[:])))
	w.int(int64(r.Kind))
	w.int(int64(r.Hop))
	w.int(r.Rates.Steps)
	w.int(int64(r.Rates.StepTime))
	for i := range r.Metrics {
		w.int(r.Metrics[i].NotMeasuredActive)
		for _, s := range r.Metrics[i].Worst {
			w.int(s.Offset)
		}
	}
}

func (w *hashWriter) buckets(b *Buckets) {
	w.int(int64(len(b.Indexes)))
	putAll(w, b.Indexes)
	w.int(int64(len(b.Counts)))
	putAll(w, b.Counts)
}

// putAll writes many integers. It takes most of the time of ContentHash.
func putAll[T int32 | uint64](w *hashWriter, values []T) {
	for len(values) > 0 {
		if w.n+8 > len(w.buf) {
			w.flush()
		}
		n := min(len(values), (len(w.buf)-w.n)/8)
		for i, v := range values[:n] {
			binary.BigEndian.PutUint64(w.buf[w.n+8*i:], uint64(int64(v)))
		}
		w.n += 8 * n
		values = values[n:]
	}
}
