package avro

import (
	"encoding/binary"

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
