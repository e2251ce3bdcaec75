package export

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/layerseries"
)

// families are the metric families of runs and layers. Every group has its own of those
// that are by metric, so that a metric which an aggregator with another
// catalogue puts into the other group cannot clash with itself.
type families struct {
	runState, runHeard, runEnd *prometheus.Desc

	frames, readings, duplicates *prometheus.Desc

	seeds, seedsSeen, seedsActive           *prometheus.Desc
	frameRate, readingRate, stepRate, delay *prometheus.Desc

	verdict, verdictReason, verdictSince, verdictChanges *prometheus.Desc

	groups [len(groups)]groupFamilies
}

type groupFamilies struct {
	samples, notMeasured, infinite *prometheus.Desc

	end                    *prometheus.Desc
	mean, min, max, stddev *prometheus.Desc
	worstSeed, worstValue  *prometheus.Desc

	median, expectedLow, expectedHigh, bestAge *prometheus.Desc
}

const sinceNote = " Accumulated since the exporter began or the layer came back."

func newFamilies(known *catalogue.Catalogue) *families {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(layerseries.Prefix+name, help, append([]string{labelRun, labelLayer}, more...), nil)
	}
	run := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("kasmina_run_"+name, help, append([]string{labelRun}, more...), nil)
	}
	f := &families{
		runState: run("state", "1 if the run is live; 0 if no rollup of it has arrived for some time; 2 if its trainer has said that it has ended."),
		runHeard: run("last_rollup_timestamp_seconds", "Time at which the last rollup of the run was appended to its topic, since the Unix epoch."),
		runEnd:   run("end_timestamp_seconds", "When the run ended, according to its trainer, since the Unix epoch. Only while the state of the run is 2.", labelOutcome),

		frames:     desc("frames_total", "Frames folded into closed windows."+sinceNote),
		readings:   desc("readings_total", "Readings (a seed at one instant) in the frames folded into closed windows."+sinceNote),
		duplicates: desc("duplicate_frames_total", "Repeated frames dropped while their window was open."+sinceNote),

		seeds:       desc(layerseries.Seeds, "Seeds of the last closed window by lifecycle state, each in the last state seen.", labelState),
		seedsSeen:   desc(layerseries.SeedsSeen, "Seeds with a reading in the last closed window."),
		seedsActive: desc(layerseries.SeedsActive, "Seeds of the last closed window that were active: in TRAINING, GRAFTING or FINE_TUNING."),

		frameRate:   desc(layerseries.FramesPerSecond, "Frames per second in the last closed window."),
		readingRate: desc(layerseries.ReadingsPerSecond, "Readings per second in the last closed window."),
		stepRate:    desc(layerseries.StepsPerSecond, "Training steps per second in the last closed window. Not shown if they cannot be computed from the window."),
		delay:       desc(layerseries.Delay, "Time from the last observation of the last closed window to the append of the record that closed it."),

		verdict:        desc("verdict", "Verdict on the layer: 0 ok, 1 warning, 2 critical. Not shown until there are enough windows."),
		verdictReason:  desc("verdict_reason", "Current reasons for the verdict on the layer: 1 warning, 2 critical. At most the five worst are shown.", labelMetric, labelKind),
		verdictSince:   desc("verdict_since_timestamp_seconds", "Event time since which the layer has had its verdict, since the Unix epoch."),
		verdictChanges: desc("verdict_changes_total", "How often windows of the layer have changed its verdict to this one."+sinceNote, labelVerdict),
	}
	for _, g := range groups {
		of := func(name, help string, more ...string) *prometheus.Desc {
			return desc(g.String()+name, help, append([]string{labelMetric}, more...)...)
		}
		f.groups[g] = groupFamilies{
			samples:     of("", fmt.Sprintf("Samples of a layer's %s metrics.%s%s", g, sinceNote, knownMetrics(known.Group(g)))),
			notMeasured: of("_not_measured_total", "Samples that were NaN: not measured. They are in no other series."+sinceNote),
			infinite:    of("_infinite_total", "Samples that were infinite. They are in no other series."+sinceNote),

			end:        desc(g.String()+layerseries.End, fmt.Sprintf("Event time at which the last closed window of %s ended, since the Unix epoch.", g)),
			mean:       of(layerseries.Mean, "Mean of the last closed window's samples."),
			min:        of(layerseries.Min, "Minimum of the last closed window's samples."),
			max:        of(layerseries.Max, "Maximum of the last closed window's samples."),
			stddev:     of(layerseries.StdDev, "Population standard deviation of the last closed window's samples."),
			worstSeed:  of(layerseries.WorstSeed, "Id of the last closed window's worst seed, by rank; 1 is the worst.", labelRank),
			worstValue: of(layerseries.WorstValue, "Worst value of the last closed window's worst seed, by rank; 1 is the worst.", labelRank),

			median:       of("_window_median", "Median of the last closed window that had samples. The verdict is about this value."),
			expectedLow:  of("_expected_low", "Lower bound of the expected range of that median."),
			expectedHigh: of("_expected_high", "Upper bound of the expected range of that median."),
			bestAge:      of("_best_age_windows", "Windows since the usual median last fell 7% below its lowest value so far. Only for metrics that should fall."),
		}
	}
	return f
}

// Labels whose values do not come from clients.
const (
	labelState = layerseries.State
	labelRank  = layerseries.Rank // 1 to Config.WorstSeeds

	labelKind    = "kind"    // of a reason
	labelVerdict = "verdict" // ok, warning, critical
	labelOutcome = "outcome" // of a run
)

// knownMetrics returns the part of a help text that describes the metrics.
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

// own calls do with each family that is not made by a groupCollector.
func (f *families) own(do func(*prometheus.Desc)) {
	for _, d := range []*prometheus.Desc{
		f.runState, f.runHeard, f.runEnd,
		f.frames, f.readings, f.duplicates, f.seeds, f.seedsSeen, f.seedsActive,
		f.frameRate, f.readingRate, f.stepRate, f.delay,
		f.verdict, f.verdictReason, f.verdictSince, f.verdictChanges,
	} {
		do(d)
	}
	for i := range f.groups {
		g := &f.groups[i]
		for _, d := range []*prometheus.Desc{g.end, g.median, g.expectedLow, g.expectedHigh, g.bestAge} {
			do(d)
		}
	}
}

// accumulated returns the families of sums.
func (g *groupFamilies) accumulated() []*prometheus.Desc {
	return []*prometheus.Desc{g.samples, g.notMeasured, g.infinite}
}

// window returns the families of the last window's samples.
func (g *groupFamilies) window() []*prometheus.Desc {
	return []*prometheus.Desc{g.mean, g.min, g.max, g.stddev, g.worstSeed, g.worstValue}
}
