package avro

import "github.com/morphogenetic/oona"

// Fingerprints of window_configuration.vN.avsc.
const (
	windowConfigurationV1 = 0x2c8ca3e286fbc52f
	windowConfigurationV2 = 0xf7a9c7e851227df8
	windowConfigurationV3 = 0x50ecc539133855a1
)

// AppendConfiguration appends c in single-object encoding. It writes version 3 only if c
// needs it, because aggregators that do not know version 3 stop at it.
func AppendConfiguration(dst []byte, c oona.WindowConfiguration) []byte {
	fingerprint := uint64(windowConfigurationV2)
	third := c.Reducer >= 2 || c.Catalogue != oona.CatalogueHash{} || c.Kind != oona.Tumbling || c.Hop != 0 || c.Gap != 0
	if third {
		fingerprint = windowConfigurationV3
	}
	dst = appendFraming(dst, fingerprint)
	for _, v := range [...]int64{
		int64(c.Generation), int64(c.From),
		int64(c.Length), int64(c.OutOfOrderness), int64(c.AllowedLateness), int64(c.TickInterval),
		int64(c.IdleHorizon), int64(c.MaxSkew), int64(c.MaxDelay),
		int64(c.MaxTimelines), int64(c.MaxAccumulators), int64(c.MaxTimelineAccumulators), int64(c.MaxLayers),
		int64(c.MaxMetrics), int64(c.MaxSeeds), int64(c.FrontierSlots), int64(c.WorstSeeds),
		int64(c.Reducer),
	} {
		dst = appendLong(dst, v)
	}
	if third {
		dst = append(dst, c.Catalogue[:]...)
		dst = appendLong(dst, c.Kind)
		dst = appendLong(dst, c.Hop)
		dst = appendLong(dst, c.Gap)
	}
	return dst
}

// DecodeConfiguration decodes a configuration of any published version. Version 1 has no
// reducer, which means reducer 1. Nothing may follow the record. The error wraps
// ErrUnpublished if a later version of Oona may have written it.
func DecodeConfiguration(data []byte) (oona.WindowConfiguration, error) {
	var w wireConfiguration
	err := decodeWhole(data, windowConfiguration, &w)
	return oona.WindowConfiguration(w), err
}

// wireConfiguration is oona.WindowConfiguration with the names of the latest schema, for
// twmb/avro.
type wireConfiguration struct {
	Generation int32       `avro:"generation"`
	From       oona.Micros `avro:"from"`

	Length          oona.Micros `avro:"length"`
	OutOfOrderness  oona.Micros `avro:"out_of_orderness"`
	AllowedLateness oona.Micros `avro:"allowed_lateness"`
	TickInterval    oona.Micros `avro:"tick_interval"`
	IdleHorizon     oona.Micros `avro:"idle_horizon"`
	MaxSkew         oona.Micros `avro:"max_skew"`
	MaxDelay        oona.Micros `avro:"max_delay"`

	MaxTimelines            int32 `avro:"max_timelines"`
	MaxAccumulators         int32 `avro:"max_accumulators"`
	MaxTimelineAccumulators int32 `avro:"max_timeline_accumulators"`
	MaxLayers               int32 `avro:"max_layers"`
	MaxMetrics              int32 `avro:"max_metrics"`
	MaxSeeds                int32 `avro:"max_seeds"`
	FrontierSlots           int32 `avro:"frontier_slots"`
	WorstSeeds              int32 `avro:"worst_seeds"`

	Reducer   int32              `avro:"reducer"`
	Catalogue oona.CatalogueHash `avro:"catalogue"`
	Kind      oona.WindowKind    `avro:"kind"`
	Hop       oona.Micros        `avro:"hop_micros"`
	Gap       oona.Micros        `avro:"gap_micros"`
}
