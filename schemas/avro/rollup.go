package avro

import (
	"encoding/binary"

	"github.com/morphogenetic/oona"
)

// Fingerprints of layer_health.vN.avsc and layer_performance.vN.avsc.
const (
	layerHealthV1      = 0x449275cbcca11aa6
	layerPerformanceV1 = 0x3c0ecd89dfaeb343
	layerHealthV2      = 0x7310e6032367f5ce
	layerPerformanceV2 = 0x000caf4ec1175628
)

// AppendRollup appends r in single-object encoding, as a LayerHealth or a
// LayerPerformance depending on r.Group. Equal rollups give equal bytes. It writes
// version 2 only if r needs it, so older readers work until a log has such rollups.
func AppendRollup(dst []byte, r *oona.Rollup) []byte {
	return appendRollup(dst, r, r.Trigger.Incarnation != 0 || r.Reducer >= 2 || r.Catalogue != oona.CatalogueHash{})
}

func appendRollup(dst []byte, r *oona.Rollup, second bool) []byte {
	health, performance := uint64(layerHealthV1), uint64(layerPerformanceV1)
	if second {
		health, performance = layerHealthV2, layerPerformanceV2
	}
	if r.Group == oona.Health {
		dst = appendRollupHead(appendFraming(dst, health), r)
		dst = appendLong(dst, r.Seeds.Seen)
		dst = appendLong(dst, r.Seeds.Active)
		dst = appendArray(dst, r.Seeds.ByState[:], appendLong)
	} else {
		dst = appendRollupHead(appendFraming(dst, performance), r)
		dst = appendDouble(dst, r.Rates.FramesPerSecond)
		dst = appendDouble(dst, r.Rates.ReadingsPerSecond)
		dst = appendDouble(dst, r.Rates.StepsPerSecond)
		dst = appendLong(dst, r.Rates.Delay)
	}
	if !second {
		return appendArray(dst, r.Metrics, appendMetric)
	}
	return appendSecond(dst, r)
}

// appendSecond appends the metrics and the fields after them, as in version 2.
func appendSecond(dst []byte, r *oona.Rollup) []byte {
	dst = appendArray(dst, r.Metrics, appendMetricSecond)
	dst = appendLong(dst, r.Trigger.Incarnation)
	dst = appendLong(dst, r.Reducer)
	dst = append(dst, r.Catalogue[:]...)
	dst = appendLong(dst, r.Kind)
	dst = appendLong(dst, r.Hop)
	if r.Group == oona.Health {
		return dst
	}
	dst = appendLong(dst, r.Rates.Steps)
	return appendLong(dst, r.Rates.StepTime)
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
	return appendArray(appendSamples(dst, &m), m.Worst, appendSeedValue)
}

func appendMetricSecond(dst []byte, m oona.MetricSummary) []byte {
	dst = appendArray(appendSamples(dst, &m), m.Worst, func(dst []byte, s oona.SeedValue) []byte {
		return appendLong(appendSeedValue(dst, s), s.Offset)
	})
	return appendLong(dst, m.NotMeasuredActive)
}

func appendSamples(dst []byte, m *oona.MetricSummary) []byte {
	dst = appendText(dst, m.Name)
	dst = appendLong(dst, m.Count)
	dst = appendLong(dst, m.NotMeasured)
	dst = appendLong(dst, m.Infinite)
	for _, v := range [...]float64{m.Sum, m.Min, m.Max, m.Mean, m.M2, m.StdDev()} {
		dst = appendDouble(dst, v)
	}
	dst = appendLong(dst, m.Histogram.Zero)
	dst = appendBuckets(dst, &m.Histogram.Positive)
	return appendBuckets(dst, &m.Histogram.Negative)
}

func appendBuckets(dst []byte, b *oona.Buckets) []byte {
	dst = appendArray(dst, b.Indexes, appendLong)
	return appendArray(dst, b.Counts, appendLong)
}

func appendSeedValue(dst []byte, s oona.SeedValue) []byte {
	return appendDouble(appendLong(dst, s.Seed), s.Value)
}
