package oona

import (
	"fmt"
	"math"
	"strings"
)

// ConfigurationRecord is the value of HeaderRecord for a WindowConfiguration.
const ConfigurationRecord = "configuration/1"

// IsConfiguration reports whether kind, a value of HeaderRecord, names a record
// that changes how a partition is folded: a WindowConfiguration, an
// IncarnationStart, or a kind of a later version. A worker must stop at a
// configuration record that it does not know.
func IsConfiguration(kind string) bool { return strings.HasPrefix(kind, "configuration/") }

// WindowConfiguration says how the windows of a partition are made from the
// event time From on. Package windows documents the fields, and when a record
// with a configuration takes effect.
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

	// Catalogue identifies the catalogue that gives each metric its group and
	// direction. If it is zero, the aggregator's own catalogue holds: the first
	// built-in one unless configured otherwise.
	Catalogue CatalogueHash
	// Kind, Hop and Gap are for windows that are not tumbling. They must be
	// zero, as the engine makes only tumbling windows.
	Kind WindowKind
	Hop  Micros
	Gap  Micros
}

// longestSpan is the longest time.Duration: 292 years.
const longestSpan = Micros(math.MaxInt64 / 1000)

// Validate returns a *FieldError for the first field that is out of range.
// Package windows checks whether the fields fit together.
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
		return &FieldError{"kind", fmt.Sprintf("is %s with a hop of %d and a gap of %d microseconds; use tumbling windows without hop and gap", c.Kind, c.Hop, c.Gap)}
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
			return &FieldError{limit.field, fmt.Sprintf("is %d; use 0 or more", limit.value)}
		}
	}
	return nil
}
