package parquet

import (
	"math"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/records"
)

// windowsSuffix is the end of the name of a table with a row for each rollup. The table of the metrics
// has the same name without the suffix.
const windowsSuffix = "_windows"

// rollupKey has what identifies a rollup.
type rollupKey struct {
	Start       int64  `parquet:"window_start,timestamp(microsecond)"`
	End         int64  `parquet:"window_end,timestamp(microsecond)"`
	Timeline    string `parquet:"timeline,dict"`
	Offset      int64  `parquet:"offset,delta"` // offset of the rollup's record
	Incarnation int64  `parquet:"trigger_incarnation"`
	Trigger     int64  `parquet:"trigger_offset,delta"`
	Index       int32  `parquet:"trigger_index"`
}

func keyOf(r *records.Record) rollupKey {
	u := r.Rollup
	return rollupKey{
		Start: int64(u.Start), End: int64(u.End), Timeline: string(u.Timeline), Offset: r.At.Offset,
		Incarnation: int64(u.Trigger.Incarnation), Trigger: u.Trigger.Offset, Index: u.Trigger.Index,
	}
}

// window has the columns that the rollups of both groups have.
type window struct {
	Watermark   int64  `parquet:"watermark,timestamp(microsecond)"`
	FirstOffset int64  `parquet:"first_offset"`
	LastOffset  int64  `parquet:"last_offset"`
	Frames      int64  `parquet:"frames"`
	Readings    int64  `parquet:"readings"`
	Duplicates  int64  `parquet:"duplicates"`
	Generation  int32  `parquet:"generation"`
	Reducer     int32  `parquet:"reducer"`
	Catalogue   string `parquet:"catalogue,dict"`
	Kind        string `parquet:"window_kind,dict"`
	Hop         int64  `parquet:"window_hop_micros"`
}

func windowOf(u *oona.Rollup) window {
	return window{
		int64(u.Watermark), u.FirstOffset, u.LastOffset, u.Frames, u.Readings, u.Duplicates,
		u.Generation, u.Reducer, u.Catalogue.String(), u.Kind.String(), int64(u.Hop),
	}
}

// healthRow is a row of layer_health_windows.
type healthRow struct {
	rollupKey
	window
	Seen          int64 `parquet:"seeds_seen"`
	Active        int64 `parquet:"seeds_active"`
	Dormant       int64 `parquet:"seeds_dormant"`
	Germinated    int64 `parquet:"seeds_germinated"`
	Training      int64 `parquet:"seeds_training"`
	Grafting      int64 `parquet:"seeds_grafting"`
	Stabilization int64 `parquet:"seeds_stabilization"`
	Evaluating    int64 `parquet:"seeds_evaluating"`
	FineTuning    int64 `parquet:"seeds_fine_tuning"`
	Fossilized    int64 `parquet:"seeds_fossilized"`
	Culled        int64 `parquet:"seeds_culled"`
	Cancelled     int64 `parquet:"seeds_cancelled"`
	RolledBack    int64 `parquet:"seeds_rolled_back"`
}

func healthOf(r *records.Record) healthRow {
	by := &r.Rollup.Seeds.ByState
	return healthRow{
		rollupKey: keyOf(r), window: windowOf(r.Rollup),
		Seen: r.Rollup.Seeds.Seen, Active: r.Rollup.Seeds.Active,
		Dormant: by[oona.Dormant], Germinated: by[oona.Germinated], Training: by[oona.Training], Grafting: by[oona.Grafting],
		Stabilization: by[oona.Stabilization], Evaluating: by[oona.Evaluating], FineTuning: by[oona.FineTuning],
		Fossilized: by[oona.Fossilized], Culled: by[oona.Culled], Cancelled: by[oona.Cancelled], RolledBack: by[oona.RolledBack],
	}
}

// performanceRow is a row of layer_performance_windows.
type performanceRow struct {
	rollupKey
	window
	FramesPerSecond   float64  `parquet:"frames_per_second"`
	ReadingsPerSecond float64  `parquet:"readings_per_second"`
	StepsPerSecond    *float64 `parquet:"steps_per_second,optional"` // NULL: not known
	Steps             int64    `parquet:"steps"`
	StepTime          int64    `parquet:"step_micros"`
	Delay             int64    `parquet:"delay_micros"`
}

func performanceOf(r *records.Record) performanceRow {
	rates := &r.Rollup.Rates
	row := performanceRow{
		rollupKey: keyOf(r), window: windowOf(r.Rollup), FramesPerSecond: rates.FramesPerSecond, ReadingsPerSecond: rates.ReadingsPerSecond,
		Steps: rates.Steps, StepTime: int64(rates.StepTime), Delay: int64(rates.Delay),
	}
	if r.Rollup.SpeedKnown() {
		speed := rates.StepsPerSecond
		row.StepsPerSecond = &speed
	}
	return row
}

// metricRow is a row of layer_health and layer_performance: a metric of a rollup.
type metricRow struct {
	rollupKey
	Metric            string   `parquet:"metric,dict"`
	Count             int64    `parquet:"count"`
	NotMeasured       int64    `parquet:"not_measured"`
	NotMeasuredActive int64    `parquet:"not_measured_active"`
	Infinite          int64    `parquet:"infinite"`
	Sum               float64  `parquet:"sum"`
	Min               *float64 `parquet:"min,optional"` // this and the next optional columns are NULL if Count is 0
	Max               *float64 `parquet:"max,optional"`
	Mean              *float64 `parquet:"mean,optional"`
	StdDev            *float64 `parquet:"stddev,optional"`
	M2                float64  `parquet:"m2"`
	Histogram         []bucket `parquet:"histogram,list"` // ascending
	Worst             []worst  `parquet:"worst,list"`     // worst first
}

// bucket counts values above Lower, up to Upper. For negative values, Lower is included
// and Upper is not.
type bucket struct {
	Lower float64 `parquet:"lower"`
	Upper float64 `parquet:"upper"`
	Count int64   `parquet:"count"`
}

type worst struct {
	Seed   int32   `parquet:"seed"`
	Value  float64 `parquet:"value"`
	Offset int64   `parquet:"offset"` // of the frame; -1: not known
}

func metricOf(key rollupKey, m *oona.MetricSummary) metricRow {
	row := metricRow{
		rollupKey: key, Metric: strings.Clone(m.Name), Count: m.Count, NotMeasured: m.NotMeasured, NotMeasuredActive: m.NotMeasuredActive,
		Infinite: m.Infinite, Sum: m.Sum, M2: m.M2, Histogram: bucketsOf(&m.Histogram),
	}
	if m.Count > 0 {
		least, most, mean, deviation := m.Min, m.Max, m.Mean, m.StdDev()
		row.Min, row.Max, row.Mean, row.StdDev = &least, &most, &mean, &deviation
	}
	for _, s := range m.Worst {
		row.Worst = append(row.Worst, worst{int32(s.Seed), s.Value, s.Offset})
	}
	return row
}

// bucketsOf returns the buckets of a histogram, ascending by their bounds.
func bucketsOf(h *oona.Histogram) []bucket {
	bound := func(index int32) float64 { return math.Exp2(float64(index) / (1 << oona.HistogramSchema)) }
	var all []bucket
	for i, index := range slices.Backward(h.Negative.Indexes) {
		all = append(all, bucket{-bound(index), -bound(index - 1), int64(h.Negative.Counts[i])})
	}
	if h.Zero > 0 {
		all = append(all, bucket{-oona.HistogramZeroThreshold, oona.HistogramZeroThreshold, int64(h.Zero)})
	}
	for i, index := range h.Positive.Indexes {
		all = append(all, bucket{bound(index - 1), bound(index), int64(h.Positive.Counts[i])})
	}
	return all
}

// addRollup adds the rows of a rollup to their parts: one row for its window, and one for each metric.
func (w *writer) addRollup(r *records.Record) *part {
	u := r.Rollup
	p := w.part(r, partKey{w.table + windowsSuffix, u.Run, u.Layer})
	if u.Group == oona.Health {
		hold(p, healthOf(r))
	} else {
		hold(p, performanceOf(r))
	}
	w.grow(p, r, 1, rowOverhead)
	if len(u.Metrics) == 0 {
		return p
	}
	p = w.part(r, partKey{w.table, u.Run, u.Layer})
	values := 0
	for i := range u.Metrics {
		row := metricOf(keyOf(r), &u.Metrics[i])
		values += rowOverhead + 6*len(row.Histogram) + 6*len(row.Worst)
		held := hold(p, row)
		if at, found := slices.BinarySearch(held.names, row.Metric); !found {
			held.names = slices.Insert(held.names, at, row.Metric)
		}
	}
	w.grow(p, r, len(u.Metrics), values)
	return p
}

// hold adds a row to a part.
func hold[T any](p *part, row T) *rows[T] {
	held, ok := p.content.(*rows[T])
	if !ok {
		held = new(rows[T])
		p.content = held
	}
	held.all = append(held.all, row)
	return held
}
