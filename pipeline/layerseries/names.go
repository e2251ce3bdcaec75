// Package layerseries defines which series a layer has, and which rollups can be shown. Package
// export exposes these series to scrapes, and package remotewrite sends them. Both use this package,
// so that they have the same names and labels.
package layerseries

import "github.com/morphogenetic/oona"

// Prefix begins the name of each series of a layer.
const Prefix = "kasmina_layer_"

// Labels. The values of Run, Layer and Metric come from clients, so their number is limited.
const (
	Run    = "run"
	Layer  = "layer"
	Metric = "metric"
	State  = "state"
	Rank   = "rank" // of a worst seed, from 1

	TopicPrefix = "prefix" // of the topics
	Source      = "source" // only of series that were sent by remote write
)

// Names of the gauges of a layer's window, after Prefix.
const (
	Seeds             = "seeds" // by State
	SeedsSeen         = "seeds_seen"
	SeedsActive       = "seeds_active"
	FramesPerSecond   = "window_frames_per_second"
	ReadingsPerSecond = "window_readings_per_second"
	StepsPerSecond    = "window_steps_per_second"
	Delay             = "window_delay_seconds"
)

// Names of the gauges of a group in a layer's window, after Prefix and the name of the
// group. All but End are by Metric.
const (
	End        = "_window_end_timestamp_seconds"
	Mean       = "_window_mean"
	Min        = "_window_min"
	Max        = "_window_max"
	StdDev     = "_window_stddev"
	WorstSeed  = "_window_worst_seed"  // by Rank
	WorstValue = "_window_worst_value" // by Rank
)

// Names of further gauges of a window, which only remote write has: a scrape shows what
// they count as counters and histograms over all windows.
const (
	WindowFrames     = "window_frames"
	WindowReadings   = "window_readings"
	WindowDuplicates = "window_duplicate_frames"

	// After Prefix and the name of the group, by Metric.
	WindowSamples     = "_window_samples" // a histogram
	WindowNotMeasured = "_window_not_measured"
	WindowInfinite    = "_window_infinite"
)

// Seconds returns a time in the unit of series.
func Seconds(m oona.Micros) float64 { return float64(m) / 1e6 }
