package export

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
)

// families are the metric families of layers. Every group has its own of those
// that are by metric, so that a metric which an aggregator with another
// catalogue puts into the other group cannot clash with itself.
type families struct {
	frames, readings, duplicates *prometheus.Desc

	seeds, seedsSeen, seedsActive           *prometheus.Desc
	frameRate, readingRate, stepRate, delay *prometheus.Desc

	groups [len(groups)]groupFamilies
}

type groupFamilies struct {
	samples, notMeasured, infinite *prometheus.Desc

	end                    *prometheus.Desc
	mean, min, max, stddev *prometheus.Desc
	worstSeed, worstValue  *prometheus.Desc
}

const (
	prefix    = "kasmina_layer_"
	sinceNote = " Accumulated since the exporter began or the layer came back."
)

func newFamilies(known *catalogue.Catalogue) *families {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, append([]string{labelRun, labelLayer}, more...), nil)
	}
	f := &families{
		frames:     desc("frames_total", "Frames folded into closed windows."+sinceNote),
		readings:   desc("readings_total", "Readings (a seed at one instant) in the frames folded into closed windows."+sinceNote),
		duplicates: desc("duplicate_frames_total", "Repeated frames dropped while their window was open."+sinceNote),

		seeds:       desc("seeds", "Seeds of the last closed window by lifecycle state, each in the last state seen.", labelState),
		seedsSeen:   desc("seeds_seen", "Seeds that the last closed window had a reading of."),
		seedsActive: desc("seeds_active", "Seeds of the last closed window that compute: in TRAINING, GRAFTING or FINE_TUNING."),

		frameRate:   desc("window_frames_per_second", "Frames a second over the last closed window."),
		readingRate: desc("window_readings_per_second", "Readings a second over the last closed window."),
		stepRate:    desc("window_steps_per_second", "Training steps a second of the last closed window. Not shown where the window does not tell."),
		delay:       desc("window_delay_seconds", "Time from the last observation of the last closed window to the append of the record that closed it."),
	}
	for _, g := range groups {
		of := func(name, help string, more ...string) *prometheus.Desc {
			return desc(g.String()+name, help, append([]string{labelMetric}, more...)...)
		}
		f.groups[g] = groupFamilies{
			samples:     of("", fmt.Sprintf("Samples of a layer's %s metrics.%s%s", g, sinceNote, knownMetrics(known.Group(g)))),
			notMeasured: of("_not_measured_total", "Samples that were NaN: not measured. They are in no other series."+sinceNote),
			infinite:    of("_infinite_total", "Samples that were infinite. They are in no other series."+sinceNote),

			end:        desc(g.String()+"_window_end_timestamp_seconds", fmt.Sprintf("Event time at which the last closed window of %s ended, since the Unix epoch.", g)),
			mean:       of("_window_mean", "Mean of the last closed window's samples."),
			min:        of("_window_min", "Least of the last closed window's samples."),
			max:        of("_window_max", "Greatest of the last closed window's samples."),
			stddev:     of("_window_stddev", "Population standard deviation of the last closed window's samples."),
			worstSeed:  of("_window_worst_seed", "Id of the last closed window's worst seed by rank; 1 is the worst.", labelRank),
			worstValue: of("_window_worst_value", "Worst value that the last closed window saw of its worst seed by rank; 1 is the worst.", labelRank),
		}
	}
	return f
}

// Labels whose values do not come from clients.
const (
	labelState = "state"
	labelRank  = "rank" // 1 to Config.WorstSeeds
)

// knownMetrics is the part of a help text that says what the metrics are.
func knownMetrics(of []oona.Metric) string {
	var text strings.Builder
	for _, m := range of {
		fmt.Fprintf(&text, " %s", m.Name)
		if m.Unit != "" {
			fmt.Fprintf(&text, " (%s)", m.Unit)
		}
		if m.Help != "" {
			fmt.Fprintf(&text, ": %s", m.Help)
		}
	}
	return text.String()
}

// all calls do with each family.
func (f *families) all(do func(*prometheus.Desc)) {
	for _, d := range []*prometheus.Desc{
		f.frames, f.readings, f.duplicates, f.seeds, f.seedsSeen, f.seedsActive,
		f.frameRate, f.readingRate, f.stepRate, f.delay,
	} {
		do(d)
	}
	for i := range f.groups {
		g := &f.groups[i]
		for _, d := range []*prometheus.Desc{
			g.samples, g.notMeasured, g.infinite, g.end, g.mean, g.min, g.max, g.stddev, g.worstSeed, g.worstValue,
		} {
			do(d)
		}
	}
}
