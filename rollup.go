package oona

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
)

// Trigger is the place in the log of the record that closed a window, and the
// rollup's place among those that it closed. Triggers of a partition ascend in
// the order of emission, also when the log was lost or made again: then its
// incarnation is greater.
type Trigger struct {
	Incarnation Incarnation // of the input log at the record
	Offset      int64       // of the input record
	Index       int32       // from 0; a layer's two rollups share it
}

// After reports whether t was emitted after u on the same partition.
func (t Trigger) After(u Trigger) bool {
	return cmp.Or(cmp.Compare(t.Incarnation, u.Incarnation), cmp.Compare(t.Offset, u.Offset), cmp.Compare(t.Index, u.Index)) > 0
}

// WindowKind says how the windows of a rollup follow one another.
type WindowKind int32

// The kinds of windows. The ordinals are on the wire.
const (
	Tumbling WindowKind = iota // one begins where the last one ends
	Hopping                    // one begins every hop
	Session                    // one ends after a gap without frames
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

// Rollup is what one window held of one layer: LayerHealth or
// LayerPerformance, as Group says. It holds nothing from outside the window's
// own records, and is the same, byte for byte, whoever computes it.
type Rollup struct {
	Group      Group
	Run        RunID
	Layer      LayerID
	Timeline   TimelineID
	Start, End Micros // event time, End excluded
	Trigger    Trigger
	Watermark  Micros // the timeline's, before the trigger
	// FirstOffset and LastOffset are those of the first and the last record
	// that was folded; records of others may lie between.
	FirstOffset, LastOffset int64
	Frames                  int64
	Readings                int64
	Duplicates              int64 // repeats dropped while the window was open
	Generation              int32 // of the configuration
	// Reducer is the version of the reducers that made the rollup, from 1.
	// Fields that say so are zero below reducer 2.
	Reducer   int32
	Catalogue CatalogueHash // of the configuration; zero where the log names none
	Kind      WindowKind
	Hop       Micros // between the starts of two windows; 0 for Tumbling and Session
	Seeds     SeedCensus
	Rates     Rates
	Metrics   []MetricSummary // of Group, ascending by name
	Hash      uint64          // ContentHash of the rest
}

// SeedCensus counts a layer's seeds, each in the last state that the window
// saw it in. It is zero in LayerPerformance.
type SeedCensus struct {
	Seen    int64
	Active  int64
	ByState [StateCount]int64
}

// Rates are the speeds of a layer. They are zero in LayerHealth.
type Rates struct {
	FramesPerSecond   float64 // frames over the window's length
	ReadingsPerSecond float64
	// StepsPerSecond is Steps over StepTime. It is 0 where StepTime is 0, which
	// means that the speed is not known. Reducer 1: the greatest step less the
	// least over the time between the first and the last observation.
	StepsPerSecond float64
	// Steps is the sum of the rises of the step from one frame of a producer
	// to its next, and StepTime is the event time between these frames. From
	// reducer 2 on.
	Steps    int64
	StepTime Micros
	// Delay is from the window's last observation to the append of the
	// record that triggered the rollup.
	Delay Micros
}

// MetricSummary folds the samples of one metric. NaN samples are counted in
// NotMeasured, infinities in Infinite, and neither enters any other field.
type MetricSummary struct {
	Name        string
	Count       int64
	NotMeasured int64
	Infinite    int64
	Sum         float64
	Min, Max    float64 // 0 where Count is 0
	Mean        float64
	M2          float64 // sum of squared deviations from Mean
	Histogram   Histogram
	// Worst lists the worst seeds, worst first. Of a Neutral metric these are
	// the seeds farthest from Mean; reducer 1 lists none of them.
	Worst []SeedValue
	// NotMeasuredActive counts the NaN samples of seeds in an active state.
	// From reducer 2 on.
	NotMeasuredActive int64
}

// SpeedKnown reports whether StepsPerSecond is a speed: whether the window had
// two frames of one producer between which the step did not fall. Reducer 1
// does not tell.
func (r *Rollup) SpeedKnown() bool { return r.Reducer < 2 || r.Rates.StepTime > 0 }

// StdDev returns the population standard deviation, 0 where Count is 0.
func (s *MetricSummary) StdDev() float64 {
	if s.Count == 0 {
		return 0
	}
	return math.Sqrt(s.M2 / float64(s.Count))
}

// SeedValue is a seed and the worst value that the window saw of it.
type SeedValue struct {
	Seed  SeedID
	Value float64
	// Offset is where the frame with the value is in the log; NoOffset below
	// reducer 2.
	Offset int64
}

// HistogramSchema is Prometheus' native schema 5: 32 buckets an octave, so
// that a quantile is off by at most 1.1% of its value.
const HistogramSchema = 5

// HistogramZeroThreshold bounds the zero bucket: the least normal float32.
const HistogramZeroThreshold = 0x1p-126

// Histogram counts samples in exponential buckets. Bucket i of Positive counts
// samples in (2^((i-1)/32), 2^(i/32)], of Negative those with the sign turned;
// Zero counts samples within HistogramZeroThreshold of 0.
type Histogram struct {
	Zero     uint64
	Positive Buckets
	Negative Buckets
}

// Buckets are the buckets of one sign that are not empty: Counts[j] is the
// count of bucket Indexes[j]; Indexes ascend.
type Buckets struct {
	Indexes []int32
	Counts  []uint64
}

// ContentHash returns the first eight bytes of the SHA-256 of all fields but
// Hash and the trigger's incarnation, in a fixed binary form. The fields that
// came with reducer 2 follow behind the others, from reducer 2 on.
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

// hashWriter collects fixed-width fields and length-prefixed texts, so that no
// two different rollups have the same form.
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

// second writes what reducer 2 added.
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

// putAll writes many integers, which is where the time goes.
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
