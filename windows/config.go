package windows

import (
	"fmt"
	"math"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// Config has everything besides the log that the rollups of a partition depend on.
// Two engines with equal configurations, logs and catalogues emit equal rollups: see
// Catalogues. Durations are whole microseconds. The tags are for a command's flags.
type Config struct {
	// Length of the tumbling windows, which are aligned to the Unix epoch:
	// [k*Length, (k+1)*Length). Default 10s.
	Length time.Duration `name:"window-length" help:"Length of a window of event time."`
	// OutOfOrderness is how far a producer's frames on one path may be
	// behind its latest one: the watermark stays that much behind the
	// slowest producer. Default 1s.
	OutOfOrderness time.Duration `name:"out-of-orderness" help:"How far the frames of one producer may be out of order."`
	// AllowedLateness is how much longer a window stays open once the
	// watermark has passed its end. It closes once and fires once.
	// Default 5s.
	AllowedLateness time.Duration `name:"allowed-lateness" help:"How long a window stays open after the watermark has passed its end."`
	// TickInterval is an interval of the log clock. Each record that advances the
	// clock into a new interval evaluates all timelines. No record advances
	// the clock by more than two intervals. Default 1s.
	TickInterval time.Duration `name:"tick-interval" help:"Interval of the log clock, and how long a partition may have no record before a tick is written into it."`
	// IdleHorizon is how long a producer on a path must have been silent, by
	// the log clock, before the watermark advances without it. It is measured
	// in quarters, so a producer becomes idle after 1 to 1.25 horizons. It must
	// be longer than two tick intervals, so that an outage of the bus makes no
	// producer idle. Default 60s.
	IdleHorizon time.Duration `name:"idle-horizon" help:"How long a producer must be silent before it no longer holds back the watermark."`
	// MaxSkew is how far a frame's event time may be ahead of its append
	// time. Default 60s.
	MaxSkew time.Duration `name:"max-skew" help:"Maximum time by which a frame may be ahead of its append time. Other frames are quarantined."`
	// MaxDelay is how far a frame's event time may be behind its append
	// time. Default 24h.
	MaxDelay time.Duration `name:"max-delay" help:"Maximum time by which a frame may be behind its append time. Other frames are quarantined."`

	// MaxTimelines is the maximum number of timelines in a partition. When it is
	// reached, a new timeline replaces a quiet one. Default 128.
	MaxTimelines int `name:"max-timelines" help:"Maximum number of timelines (runs, or ranks that own layers) in a partition, up to 256. A commit can hold 100 to 220, depending on their state."`
	// MaxAccumulators is the maximum number of windows of layers that are open
	// in the partition at the same time. It bounds the engine's memory. A window
	// that would need one more, for another layer, is sealed: it gets no further
	// layers. Default 65536.
	MaxAccumulators int `name:"max-accumulators" help:"Maximum number of open windows, counted per layer, in a partition. It bounds the memory of the partition."`
	// MaxTimelineAccumulators is the same limit for one timeline, so that one
	// timeline cannot use all of MaxAccumulators. Default 32768.
	MaxTimelineAccumulators int `name:"max-timeline-accumulators" help:"Maximum number of open windows, counted per layer, in a timeline."`
	// MaxLayers is the maximum number of layers in one window of a timeline.
	// Default 4096.
	MaxLayers int `name:"max-layers" help:"Maximum number of layers in a window."`
	// MaxMetrics is the maximum number of metrics in one window of a layer.
	// Default 64.
	MaxMetrics int `name:"max-metrics" help:"Maximum number of metrics in a layer."`
	// MaxSeeds is the maximum number of distinct seeds in one window of a
	// layer. Default 65536.
	MaxSeeds int `name:"max-seeds" help:"Maximum number of distinct seeds in a layer and window."`
	// FrontierSlots is the number of slots over which the (producer, path)
	// pairs of a timeline are distributed by hash. Only slots in use need
	// memory. Two pairs in the same slot share its frontier. Then the watermark
	// no longer waits for the slower one, and its frames may be late. With 8
	// pairs, this happens in 37% of runs if there are 64 slots, and in 0.7% if
	// there are 4096. Default 4096.
	FrontierSlots int `name:"frontier-slots" help:"Number of hash slots for the producers of a timeline."`
	// WorstSeeds is the number of seeds that a rollup lists for each metric.
	// Reducer 1 lists none for a metric without a direction. Default 5.
	WorstSeeds int `name:"worst-seeds" help:"Number of worst seeds that a rollup lists for each metric."`

	// Generation is the number of the configuration; 0 stands for the defaults. It is
	// copied into each rollup.
	Generation int32 `kong:"-"`
	// Reducer is the version of the reducers, from 1 to [Reducer]. Default 1,
	// which is also the version for logs that do not name one.
	Reducer int32 `kong:"-"`
	// Catalogue is the hash of the catalogue that has the metrics' groups and
	// directions. It is zero if the log names none: see Catalogues.
	Catalogue oona.CatalogueHash `kong:"-"`
}

// Reducer is the latest version of the reducers. If a change of the code would give other
// rollups for the same frames, it needs a new version. The log names the version that it
// needs: see [ErrReducer]. Earlier versions are kept, so an old log still gives the same
// rollups.
//
// Version 2 measures steps from one frame of a producer to its next, lists worst
// seeds also for metrics without a direction, each with the offset of its frame, and
// counts the readings that active seeds did not measure.
const Reducer = 2

// DefaultConfig returns the defaults, which are given at each field.
func DefaultConfig() Config {
	return Config{
		Length:          10 * time.Second,
		OutOfOrderness:  time.Second,
		AllowedLateness: 5 * time.Second,
		TickInterval:    time.Second,
		IdleHorizon:     time.Minute,
		MaxSkew:         time.Minute,
		MaxDelay:        24 * time.Hour,
		MaxTimelines:    128,

		MaxAccumulators:         65_536,
		MaxTimelineAccumulators: 32_768,

		MaxLayers:     4096,
		MaxMetrics:    64,
		MaxSeeds:      65_536,
		FrontierSlots: 4096,
		WorstSeeds:    5,

		Reducer: 1,
	}
}

// Validate returns a *oona.FieldError for the first field that is not valid.
func (c Config) Validate() error {
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"Length", c.Length, time.Microsecond},
		{"OutOfOrderness", c.OutOfOrderness, 0},
		{"AllowedLateness", c.AllowedLateness, 0},
		{"TickInterval", c.TickInterval, time.Microsecond},
		{"IdleHorizon", c.IdleHorizon, time.Microsecond},
		{"MaxSkew", c.MaxSkew, 0},
		{"MaxDelay", c.MaxDelay, 0},
	} {
		if d.value < d.least {
			return &oona.FieldError{Field: d.field, Reason: fmt.Sprintf("is %s; it is at least %s", d.value, d.least)}
		}
		if d.value%time.Microsecond != 0 {
			return &oona.FieldError{Field: d.field, Reason: fmt.Sprintf("is %s; use whole microseconds", d.value)}
		}
	}
	if c.IdleHorizon/2 <= c.TickInterval {
		return &oona.FieldError{Field: "IdleHorizon", Reason: fmt.Sprintf("is %s; it is longer than two tick intervals (of %s), or one gap in the log makes every producer idle", c.IdleHorizon, c.TickInterval)}
	}
	for _, n := range []struct {
		field string
		value int
		least int
	}{
		{"MaxTimelines", c.MaxTimelines, 1},
		{"MaxAccumulators", c.MaxAccumulators, 1},
		{"MaxTimelineAccumulators", c.MaxTimelineAccumulators, 1},
		{"MaxLayers", c.MaxLayers, 1},
		{"MaxMetrics", c.MaxMetrics, 1},
		{"MaxSeeds", c.MaxSeeds, 1},
		{"FrontierSlots", c.FrontierSlots, 1},
		{"WorstSeeds", c.WorstSeeds, 0},
	} {
		if n.value < n.least {
			return &oona.FieldError{Field: n.field, Reason: fmt.Sprintf("is %d; it is at least %d", n.value, n.least)}
		}
		if n.value > math.MaxInt32 {
			return &oona.FieldError{Field: n.field, Reason: fmt.Sprintf("is %d; it is at most %d", n.value, math.MaxInt32)}
		}
	}
	if c.Reducer < 1 || c.Reducer > Reducer {
		return &oona.FieldError{Field: "Reducer", Reason: fmt.Sprintf("is %d; this program knows versions 1 to %d", c.Reducer, Reducer)}
	}
	if c.Generation < 0 {
		return &oona.FieldError{Field: "Generation", Reason: fmt.Sprintf("is %d; generations count from 0", c.Generation)}
	}
	return nil
}

// spans are a Config's durations in microseconds.
type spans struct {
	length         oona.Micros
	outOfOrderness oona.Micros
	lateness       oona.Micros
	tick           oona.Micros
	bucket         oona.Micros // a quarter of the idle horizon, rounded up
	maxSkew        oona.Micros
	maxDelay       oona.Micros
}

func spansOf(c Config) spans {
	micros := func(d time.Duration) oona.Micros { return oona.Micros(d.Microseconds()) }
	return spans{
		length:         micros(c.Length),
		outOfOrderness: micros(c.OutOfOrderness),
		lateness:       micros(c.AllowedLateness),
		tick:           micros(c.TickInterval),
		bucket:         logtime.BucketWidth(micros(c.IdleHorizon)),
		maxSkew:        micros(c.MaxSkew),
		maxDelay:       micros(c.MaxDelay),
	}
}
