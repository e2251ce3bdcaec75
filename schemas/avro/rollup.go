package avro

import (
	"encoding/binary"
	"fmt"

	"github.com/morphogenetic/oona"
)

// Fingerprints of layer_health.v1.avsc and layer_performance.v1.avsc, which
// AppendRollup writes.
const (
	layerHealthV1      = 0x449275cbcca11aa6
	layerPerformanceV1 = 0x3c0ecd89dfaeb343
)

// AppendRollup appends r in single-object encoding of LayerHealth or
// LayerPerformance, as r.Group says. Equal rollups give equal bytes.
func AppendRollup(dst []byte, r *oona.Rollup) []byte {
	if r.Group == oona.Health {
		dst = appendRollupHead(appendFraming(dst, layerHealthV1), r)
		dst = appendLong(dst, r.Seeds.Seen)
		dst = appendLong(dst, r.Seeds.Active)
		dst = appendArray(dst, r.Seeds.ByState[:], appendInteger)
	} else {
		dst = appendRollupHead(appendFraming(dst, layerPerformanceV1), r)
		dst = appendDouble(dst, r.Rates.FramesPerSecond)
		dst = appendDouble(dst, r.Rates.ReadingsPerSecond)
		dst = appendDouble(dst, r.Rates.StepsPerSecond)
		dst = appendLong(dst, int64(r.Rates.Delay))
	}
	return appendArray(dst, r.Metrics, appendMetric)
}

func appendRollupHead(dst []byte, r *oona.Rollup) []byte {
	dst = appendText(dst, r.Run)
	dst = appendText(dst, r.Layer)
	dst = appendText(dst, r.Timeline)
	for _, v := range [...]int64{
		int64(r.Start), int64(r.End), r.Trigger.Offset, int64(r.Trigger.Index), int64(r.Watermark),
		r.FirstOffset, r.LastOffset, r.Frames, r.Readings, r.Duplicates, int64(r.Generation),
	} {
		dst = appendLong(dst, v)
	}
	return binary.BigEndian.AppendUint64(dst, r.Hash)
}

func appendMetric(dst []byte, m oona.MetricSummary) []byte {
	dst = appendText(dst, m.Name)
	dst = appendLong(dst, m.Count)
	dst = appendLong(dst, m.NotMeasured)
	dst = appendLong(dst, m.Infinite)
	for _, v := range [...]float64{m.Sum, m.Min, m.Max, m.Mean, m.M2, m.StdDev()} {
		dst = appendDouble(dst, v)
	}
	dst = appendInteger(dst, m.Histogram.Zero)
	dst = appendBuckets(dst, &m.Histogram.Positive)
	dst = appendBuckets(dst, &m.Histogram.Negative)
	return appendArray(dst, m.Worst, appendSeedValue)
}

func appendBuckets(dst []byte, b *oona.Buckets) []byte {
	dst = appendArray(dst, b.Indexes, appendInteger)
	return appendArray(dst, b.Counts, appendInteger)
}

func appendSeedValue(dst []byte, s oona.SeedValue) []byte {
	return appendDouble(appendLong(dst, int64(s.Seed)), s.Value)
}

// DecodeRollup decodes the LayerHealth or LayerPerformance at the start of
// data, of any published version, and returns what follows it. r shares
// nothing with data; on an error it is as it was. The standard deviation on
// the wire is not read, as r computes it.
func DecodeRollup(data []byte, r *oona.Rollup) (rest []byte, err error) {
	v, err := published.find(data, layerHealth, layerPerformance)
	if err != nil {
		return nil, err
	}
	var w interface{ rollup(*oona.Rollup) error } = &wirePerformance{}
	if v.Name == layerHealth {
		w = &wireHealth{}
	}
	if rest, err = v.decode(data, w); err != nil {
		return nil, err
	}
	if err := w.rollup(r); err != nil {
		return nil, err
	}
	return rest, nil
}

// wireRollup has the fields that both rollups share, for twmb/avro.
type wireRollup struct {
	Run         oona.RunID      `avro:"run_id"`
	Layer       oona.LayerID    `avro:"layer_id"`
	Timeline    oona.TimelineID `avro:"timeline"`
	Start       oona.Micros     `avro:"window_start"`
	End         oona.Micros     `avro:"window_end"`
	Offset      int64           `avro:"trigger_offset"`
	Index       int32           `avro:"trigger_index"`
	Watermark   oona.Micros     `avro:"watermark"`
	FirstOffset int64           `avro:"first_offset"`
	LastOffset  int64           `avro:"last_offset"`
	Frames      int64           `avro:"frames"`
	Readings    int64           `avro:"readings"`
	Duplicates  int64           `avro:"duplicates"`
	Generation  int32           `avro:"generation"`
	Hash        [8]byte         `avro:"content_hash"`
	Metrics     []wireMetric    `avro:"metrics"`
}

type wireHealth struct {
	wireRollup  `avro:",inline"`
	SeedsSeen   int64   `avro:"seeds_seen"`
	SeedsActive int64   `avro:"seeds_active"`
	ByState     []int64 `avro:"seeds_by_state"`
}

type wirePerformance struct {
	wireRollup        `avro:",inline"`
	FramesPerSecond   float64     `avro:"frames_per_second"`
	ReadingsPerSecond float64     `avro:"readings_per_second"`
	StepsPerSecond    float64     `avro:"steps_per_second"`
	Delay             oona.Micros `avro:"delay_micros"`
}

type wireMetric struct {
	Name        string          `avro:"name"`
	Count       int64           `avro:"count"`
	NotMeasured int64           `avro:"not_measured"`
	Infinite    int64           `avro:"infinite"`
	Sum         float64         `avro:"sum"`
	Min         float64         `avro:"min"`
	Max         float64         `avro:"max"`
	Mean        float64         `avro:"mean"`
	M2          float64         `avro:"m2"`
	StdDev      float64         `avro:"stddev"`
	Histogram   wireHistogram   `avro:"histogram"`
	Worst       []wireSeedValue `avro:"worst"`
}

type wireHistogram struct {
	Zero     uint64      `avro:"zero"`
	Positive wireBuckets `avro:"positive"`
	Negative wireBuckets `avro:"negative"`
}

type wireBuckets struct {
	Indexes []int32  `avro:"indexes"`
	Counts  []uint64 `avro:"counts"`
}

type wireSeedValue struct {
	Seed  oona.SeedID `avro:"seed_id"`
	Value float64     `avro:"value"`
}

func (w *wireHealth) rollup(r *oona.Rollup) error {
	out, err := w.shared(oona.Health)
	if err != nil {
		return err
	}
	out.Seeds.Seen, out.Seeds.Active = w.SeedsSeen, w.SeedsActive
	if len(w.ByState) > len(out.Seeds.ByState) {
		return &DecodeError{"seeds_by_state", -1, fmt.Errorf("%w: %d states, this reader knows %d", ErrMalformed, len(w.ByState), oona.StateCount)}
	}
	copy(out.Seeds.ByState[:], w.ByState)
	*r = out
	return nil
}

func (w *wirePerformance) rollup(r *oona.Rollup) error {
	out, err := w.shared(oona.Performance)
	if err != nil {
		return err
	}
	out.Rates = oona.Rates{
		FramesPerSecond:   w.FramesPerSecond,
		ReadingsPerSecond: w.ReadingsPerSecond,
		StepsPerSecond:    w.StepsPerSecond,
		Delay:             w.Delay,
	}
	*r = out
	return nil
}

func (w *wireRollup) shared(group oona.Group) (oona.Rollup, error) {
	r := oona.Rollup{
		Group: group,
		Run:   w.Run, Layer: w.Layer, Timeline: w.Timeline,
		Start: w.Start, End: w.End,
		Trigger:     oona.Trigger{Offset: w.Offset, Index: w.Index},
		Watermark:   w.Watermark,
		FirstOffset: w.FirstOffset, LastOffset: w.LastOffset,
		Frames: w.Frames, Readings: w.Readings, Duplicates: w.Duplicates,
		Generation: w.Generation,
		Metrics:    make([]oona.MetricSummary, len(w.Metrics)),
		Hash:       binary.BigEndian.Uint64(w.Hash[:]),
	}
	for i := range w.Metrics {
		if err := w.Metrics[i].summary(&r.Metrics[i]); err != nil {
			err.Field = fmt.Sprintf("metrics[%d].%s", i, err.Field)
			return r, err
		}
	}
	return r, nil
}

func (w *wireMetric) summary(m *oona.MetricSummary) *DecodeError {
	*m = oona.MetricSummary{
		Name: w.Name, Count: w.Count, NotMeasured: w.NotMeasured, Infinite: w.Infinite,
		Sum: w.Sum, Min: w.Min, Max: w.Max, Mean: w.Mean, M2: w.M2,
		Histogram: oona.Histogram{
			Zero:     w.Histogram.Zero,
			Positive: oona.Buckets(w.Histogram.Positive),
			Negative: oona.Buckets(w.Histogram.Negative),
		},
		Worst: make([]oona.SeedValue, len(w.Worst)),
	}
	for i, s := range w.Worst {
		m.Worst[i] = oona.SeedValue(s)
	}
	if err := w.Histogram.Positive.check("histogram.positive"); err != nil {
		return err
	}
	return w.Histogram.Negative.check("histogram.negative")
}

// check refuses buckets that a reader cannot pair.
func (w *wireBuckets) check(field string) *DecodeError {
	if len(w.Indexes) != len(w.Counts) {
		return &DecodeError{field, -1, fmt.Errorf("%w: %d indexes and %d counts", ErrMalformed, len(w.Indexes), len(w.Counts))}
	}
	return nil
}
