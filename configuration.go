package oona

import (
	"fmt"
	"math"
	"strings"
)

// ConfigurationRecord is the value of HeaderRecord for a WindowConfiguration.
const ConfigurationRecord = "configuration/1"

// IsConfiguration reports whether a value of HeaderRecord names a record that
// changes how a partition is folded: a WindowConfiguration, an
// IncarnationStart, or a kind that only a later version knows. A worker that
// does not know such a record must stop at it.
func IsConfiguration(kind string) bool { return strings.HasPrefix(kind, "configuration/") }

// WindowConfiguration is what windows of a partition are made by, from an
// instant of event time on. Package windows says what each field means, and
// when such a record holds.
type WindowConfiguration struct {
	Generation int32  // from 1, ascending; 0 is a log without configurations
	From       Micros // event time; 0 for the first record of a log, which holds for all of it

	Length          Micros
	OutOfOrderness  Micros
	AllowedLateness Micros
	TickInterval    Micros
	IdleHorizon     Micros
	MaxSkew         Micros
	MaxDelay        Micros

	MaxTimelines            int32
	MaxAccumulators         int32
	MaxTimelineAccumulators int32
	MaxLayers               int32
	MaxMetrics              int32
	MaxSeeds                int32
	FrontierSlots           int32
	WorstSeeds              int32

	Reducer int32 // version of what frames are folded into, from 1

	// Catalogue names the catalogue that gives each metric its group and its
	// direction. Zero: the log does not name one, and the aggregator's own
	// holds, which is the first built-in one unless it was told another.
	Catalogue CatalogueHash
	// Kind, Hop and Gap are for windows that are not tumbling. They are zero
	// until an aggregator can make others.
	Kind WindowKind
	Hop  Micros
	Gap  Micros
}

// longestSpan is the longest duration that nanoseconds can count: 292 years.
const longestSpan = Micros(math.MaxInt64 / 1000)

// Validate returns a *FieldError for the first field that cannot be. Whether
// the fields fit together is for package windows to say.
func (c *WindowConfiguration) Validate() error {
	if c.Generation < 1 {
		return &FieldError{"generation", fmt.Sprintf("is %d; generations of records count from 1", c.Generation)}
	}
	if c.From != 0 && (c.From < earliestObservation || c.From >= latestObservation) {
		return &FieldError{"from", fmt.Sprintf("is %d microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?", c.From)}
	}
	for _, span := range []struct {
		field string
		value Micros
	}{
		{"length", c.Length},
		{"out_of_orderness", c.OutOfOrderness},
		{"allowed_lateness", c.AllowedLateness},
		{"tick_interval", c.TickInterval},
		{"idle_horizon", c.IdleHorizon},
		{"max_skew", c.MaxSkew},
		{"max_delay", c.MaxDelay},
	} {
		if span.value < 0 || span.value > longestSpan {
			return &FieldError{span.field, fmt.Sprintf("is %d microseconds; durations are 0 to %d", span.value, longestSpan)}
		}
	}
	if c.Kind != Tumbling || c.Hop != 0 || c.Gap != 0 {
		return &FieldError{"kind", fmt.Sprintf("is %s with a hop of %d and a gap of %d microseconds; only tumbling windows, without either, are made", c.Kind, c.Hop, c.Gap)}
	}
	if c.Reducer < 1 {
		return &FieldError{"reducer", fmt.Sprintf("is %d; versions count from 1", c.Reducer)}
	}
	for _, limit := range []struct {
		field string
		value int32
	}{
		{"max_timelines", c.MaxTimelines},
		{"max_accumulators", c.MaxAccumulators},
		{"max_timeline_accumulators", c.MaxTimelineAccumulators},
		{"max_layers", c.MaxLayers},
		{"max_metrics", c.MaxMetrics},
		{"max_seeds", c.MaxSeeds},
		{"frontier_slots", c.FrontierSlots},
		{"worst_seeds", c.WorstSeeds},
	} {
		if limit.value < 0 {
			return &FieldError{limit.field, fmt.Sprintf("is %d; it is not negative", limit.value)}
		}
	}
	return nil
}
