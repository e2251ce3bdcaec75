package avro

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// DecodeRollup decodes the LayerHealth or LayerPerformance at the start of data, of any
// published version, and returns the rest of data. It leaves r unchanged if it returns
// an error. The rollup shares no memory with data. The standard deviation on the wire is
// ignored, because r computes it. For version 1, the other fields have the defaults of
// version 2: reducer 1, and no offsets of worst seeds.
//
// It is written by hand because twmb/avro 1.9 grows an array to exactly what its next
// block needs, which takes quadratic time for a record with many blocks.
func DecodeRollup(data []byte, r *oona.Rollup) (rest []byte, err error) {
	v, err := published.find(data, layerHealth, layerPerformance)
	if err != nil {
		return nil, err
	}
	c := cursor{data: data, at: framingSize}
	out := decodeRollupHead(&c)
	if v.Name == layerHealth {
		out.Group = oona.Health
		decodeSeedCounts(&c, &out.Seeds)
	} else {
		out.Group = oona.Performance
		out.Rates = oona.Rates{
			FramesPerSecond:   c.double("frames_per_second"),
			ReadingsPerSecond: c.double("readings_per_second"),
			StepsPerSecond:    c.double("steps_per_second"),
			Delay:             oona.Micros(c.long("delay_micros")),
		}
	}
	second := v.Version >= 2
	out.Metrics = decodeMetrics(&c, second)
	if second {
		decodeSecond(&c, &out)
	} else {
		out.Reducer = 1
	}
	if c.err != nil {
		return nil, c.err
	}
	*r = out
	return data[c.at:], nil
}

// decodeSecond reads the fields after the metrics, which version 1 does not have.
func decodeSecond(c *cursor, r *oona.Rollup) {
	r.Trigger.Incarnation = oona.Incarnation(c.long("incarnation"))
	r.Reducer = c.int("reducer")
	copy(r.Catalogue[:], c.fixed("catalogue", len(r.Catalogue)))
	r.Kind = oona.WindowKind(c.int("window_kind"))
	r.Hop = oona.Micros(c.long("window_hop_micros"))
	if r.Group == oona.Performance {
		r.Rates.Steps = c.long("steps")
		r.Rates.StepTime = oona.Micros(c.long("step_micros"))
	}
}

func decodeRollupHead(c *cursor) oona.Rollup {
	return oona.Rollup{
		Run:         oona.RunID(c.bytes("run_id")),
		Layer:       oona.LayerID(c.bytes("layer_id")),
		Timeline:    oona.TimelineID(c.bytes("timeline")),
		Start:       oona.Micros(c.long("window_start")),
		End:         oona.Micros(c.long("window_end")),
		Trigger:     oona.Trigger{Offset: c.long("trigger_offset"), Index: c.int("trigger_index")},
		Watermark:   oona.Micros(c.long("watermark")),
		FirstOffset: c.long("first_offset"),
		LastOffset:  c.long("last_offset"),
		Frames:      c.long("frames"),
		Readings:    c.long("readings"),
		Duplicates:  c.long("duplicates"),
		Generation:  c.int("generation"),
		Hash:        binary.BigEndian.Uint64(c.fixed("content_hash", 8)),
	}
}

func decodeSeedCounts(c *cursor, s *oona.SeedCensus) {
	s.Seen, s.Active = c.long("seeds_seen"), c.long("seeds_active")
	states := decodeArray(c, "seeds_by_state", 1, func() int64 { return c.long("seeds_by_state") })
	if len(states) > len(s.ByState) {
		c.fail("seeds_by_state", ErrMalformed, "%d states, and this program knows %d", len(states), oona.StateCount)
		return
	}
	copy(s.ByState[:], states)
}

func decodeMetrics(c *cursor, second bool) []oona.MetricSummary {
	const least = 58 // bytes of a name, six doubles, and nine numbers and ends of arrays
	i := 0
	return decodeArray(c, "metrics", least, func() oona.MetricSummary {
		m := decodeMetric(c, second)
		if c.err != nil {
			c.within("metrics", i)
		}
		i++
		return m
	})
}

func decodeMetric(c *cursor, second bool) oona.MetricSummary {
	m := oona.MetricSummary{
		Name:        string(c.bytes("name")),
		Count:       c.long("count"),
		NotMeasured: c.long("not_measured"),
		Infinite:    c.long("infinite"),
		Sum:         c.double("sum"),
		Min:         c.double("min"),
		Max:         c.double("max"),
		Mean:        c.double("mean"),
		M2:          c.double("m2"),
	}
	c.double("stddev")
	m.Histogram = oona.Histogram{
		Zero:     c.count("histogram.zero"),
		Positive: decodeBuckets(c, "histogram.positive"),
		Negative: decodeBuckets(c, "histogram.negative"),
	}
	const least = 9 // bytes of an id and a double
	m.Worst = decodeArray(c, "worst", least, func() oona.SeedValue {
		s := oona.SeedValue{Seed: oona.SeedID(c.int("worst.seed_id")), Value: c.double("worst.value"), Offset: oona.NoOffset}
		if second {
			s.Offset = c.long("worst.offset")
		}
		return s
	})
	if second {
		m.NotMeasuredActive = c.long("not_measured_active")
	}
	return m
}

func decodeBuckets(c *cursor, field string) oona.Buckets {
	b := oona.Buckets{
		Indexes: decodeArray(c, field, 1, func() int32 { return c.int(field) }),
		Counts:  decodeArray(c, field, 1, func() uint64 { return c.count(field) }),
	}
	if len(b.Indexes) != len(b.Counts) {
		c.fail(field, ErrMalformed, "%d indexes and %d counts", len(b.Indexes), len(b.Counts))
	}
	return b
}

// decodeArray reads an array whose items have at least size bytes each.
func decodeArray[T any](c *cursor, field string, size int, item func() T) []T {
	items := []T{}
	for {
		b := c.block(field, size)
		if b.count == 0 {
			return items
		}
		items = slices.Grow(items, b.count)
		for range b.count {
			items = append(items, item())
			if c.err != nil {
				return items
			}
		}
		c.endBlock(field, b)
	}
}

// double reads a float64.
func (c *cursor) double(field string) float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(c.fixed(field, 8)))
}

// fixed returns the next n bytes. After an error it returns zeros.
func (c *cursor) fixed(field string, n int) []byte {
	if b := c.take(field, int64(n)); c.err == nil {
		return b
	}
	return make([]byte, n)
}

// count reads a number that is not negative.
func (c *cursor) count(field string) uint64 {
	n := c.long(field)
	if n < 0 {
		c.fail(field, ErrMalformed, "a count of %d", n)
	}
	return uint64(n)
}
