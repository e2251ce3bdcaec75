package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// layer shows one layer: what is wrong with it, one of its metrics, and its seeds.
func layer() *board {
	return newBoard("oona-layer", "Oona / Layer",
		"One layer: its verdict and the reasons, the distribution of a metric with the range that is expected, its worst seeds and their lifecycle.",
		variables(theRun(), theLayer(), theMetric())...).
		annotated().
		row("$layer now", layerStats()...).
		row("Verdict and reasons", reasonsTimeline(), reasonsTable().Height(6)).
		row("$metric", distribution(), quantiles()).
		row("Seeds", worstSeeds(), seedsOfLayer()).
		row("Samples",
			byDecades(lines("Last window of $metric", "Mean, least and greatest sample of each closed window.", "short", targets{
				query("A", "mean", windowOf("mean")),
				query("B", "least", windowOf("min")),
				query("C", "greatest", windowOf("max")),
			})),
			lines("Samples that count nowhere", "Samples of all metrics that are NaN (not measured) or infinite, per second. No other panel contains them.", "short", targets{
				query("A", "not measured", "sum("+once("rate("+named("kasmina_layer_(health|performance)_not_measured_total", ofLayers)+"[$__rate_interval])")+")"),
				query("B", "infinite", "sum("+once("rate("+named("kasmina_layer_(health|performance)_infinite_total", ofLayers)+"[$__rate_interval])")+")"),
			}),
		)
}

// theLayer lists the layers of the run, worst first, so that the first choice is the one
// to look at.
func theLayer() cog.Builder[dashboard.VariableModel] {
	return ask("layer", "Layer", fmt.Sprintf("query_result(topk(5000, max by (layer) (%s) or max by (layer) (%s) * 0 - 1))",
		series("kasmina_layer_verdict", ofRun), series("kasmina_layer_seeds_seen", ofRun))).
		Regex(`/layer="([^"]+)"/`).Sort(dashboard.VariableSortDisabled)
}

func layerStats() []cog.Builder[dashboard.Panel] {
	value := func(title, description, unit, name string) cog.Builder[dashboard.Panel] {
		return shortStat(title, description, unit, "sum("+once(series(name, ofLayers))+")", levels(quiet))
	}
	return []cog.Builder[dashboard.Panel]{
		shortStat("Verdict", "The verdict on the layer. Nothing is shown until there are enough windows.", "none",
			"max("+once(series("kasmina_layer_verdict", ofLayers))+")", levels(quiet)).
			Mappings(verdicts()).ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeNone),
		shortStat("Since", "Time of the data at which it came to this verdict.", "dateTimeFromNow",
			"1000 * min("+series("kasmina_layer_verdict_since_timestamp_seconds", ofLayers)+")", levels(quiet)).GraphMode(common.BigValueGraphModeNone),
		value("Seeds", "Seeds with a reading in the last closed window.", "none", "kasmina_layer_seeds_seen"),
		value("Active seeds", "Seeds in TRAINING, GRAFTING or FINE_TUNING in the last closed window.", "none", "kasmina_layer_seeds_active"),
		value("Frames per second", "Of the last closed window.", "short", "kasmina_layer_window_frames_per_second"),
		value("Delay", "From the last observation of the last closed window to the record that closed it.", "s", "kasmina_layer_window_delay_seconds"),
	}
}

// reasonsTimeline shows the verdict and below it each reason, while it stands.
func reasonsTimeline() cog.Builder[dashboard.Panel] {
	return timeline("Verdict", "The verdict on the layer, and each reason for as long as it stands.", verdicts(), targets{
		query("A", "verdict", "max by (run, layer) ("+series("kasmina_layer_verdict", ofLayers)+")"+
			fmt.Sprintf(" and topk(%d, max by (run, layer) (last_over_time(%s[$__range] @ end())))", most, series("kasmina_layer_verdict", ofLayers))),
		query("B", "{{metric}} {{kind}}", fmt.Sprintf("topk(10, max by (metric, kind) (%s))", series("kasmina_layer_verdict_reason", ofLayers))),
	}).Height(6)
}

// distribution is the course of a histogram.
func distribution() cog.Builder[dashboard.Panel] {
	return heatmap.NewPanelBuilder().Title("Distribution of $metric").
		Description("How many samples of the seeds lie where. Native histograms need Grafana 10.2 or later. Points are samples with a trace. Empty? Choose the other kind of histogram above.").
		Datasource(source).Unit("short").Span(12).Height(10).
		Targets(targets{
			query("A", "{{le}}", histogram("kasmina_layer_(health|performance)", ofLayers, `metric="$metric"`)).
				Format(prometheus.PromQueryFormatHeatmap).Exemplar(true),
		}).
		Calculate(false).CellGap(0).ShowLegend().
		Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).Scheme("Viridis").
			Scale(heatmap.HeatmapColorScaleExponential).Exponent(0.5).Steps(64).Reverse(false).Fill("dark-orange")).
		YAxis(heatmap.NewYAxisConfigBuilder().Unit("short").AxisPlacement(common.AxisPlacementLeft)).
		Tooltip(heatmap.NewHeatmapTooltipBuilder().Mode(common.TooltipDisplayModeSingle).YHistogram(true)).
		ExemplarsColor("rgba(255,0,255,0.7)")
}

// quantiles are those of the samples, with the range in which the median of a window is
// expected as a band.
func quantiles() cog.Builder[dashboard.Panel] {
	q := func(q float64) string {
		return quantile(q, histogram("kasmina_layer_(health|performance)", ofLayers, `metric="$metric"`))
	}
	hidden := property("custom.lineWidth", 0)
	return byDecades(lines("$metric and what is expected", "The median of each window, as it is judged, with the range in which it is expected as a band, and quantiles of the samples of the last minutes. A metric without a band has no expected range yet, or no rule.", "short", targets{
		query("A", "expected from", windowSeries("expected_low")),
		query("B", "expected to", windowSeries("expected_high")),
		query("C", "median of the window", windowSeries("window_median")),
		query("D", "p99", q(0.99)).Exemplar(true),
		query("E", "p50", q(0.5)),
	})).Height(10).
		OverrideByName("expected from", []dashboard.DynamicConfigValue{hidden, fixed(fine)}).
		OverrideByName("expected to", []dashboard.DynamicConfigValue{hidden, fixed(fine), property("custom.fillBelowTo", "expected from"), property("custom.fillOpacity", 25)}).
		OverrideByName("median of the window", []dashboard.DynamicConfigValue{fixed("#3274d9"), property("custom.lineWidth", 2.5)}).
		OverrideByName("p99", []dashboard.DynamicConfigValue{fixed("#b877d9")}).
		OverrideByName("p50", []dashboard.DynamicConfigValue{fixed(quiet)})
}

// windowSeries is a gauge of the chosen metric of the layer, whichever group it is of.
func windowSeries(name string) string {
	return "max(" + once(named("kasmina_layer_(health|performance)_"+name, ofLayers, `metric="$metric"`)) + ")"
}

func windowOf(what string) string { return windowSeries("window_" + what) }

// worstSeeds lists the worst seeds with their ids. An id is the value of one series, and how
// bad the seed is of another.
func worstSeeds() cog.Builder[dashboard.Panel] {
	of := func(name string) string {
		return "max by (run, layer, metric, rank) (" + named("kasmina_layer_(health|performance)_"+name, ofLayers, `metric="$metric"`) + ")"
	}
	seeds := fmt.Sprintf(`topk(20, count_values by (run, layer, metric, rank) ("seed", %s) * on (run, layer, metric, rank) group_left () %s)`, of("window_worst_seed"), of("window_worst_value"))
	return grid("Worst seeds", "The seeds with the worst values of $metric in the last closed window. Of a metric without a direction they are those farthest from the mean.", targets{
		cells("A", found(found(seeds, "page"), "traces")),
	},
		column{"rank", "Rank", []dashboard.DynamicConfigValue{property("custom.width", 60)}},
		column{"seed", "Seed", nil},
		column{"metric", "Metric", nil},
		column{"Value", "Value", nil},
		column{"layer", "Layer", nil},
		column{"run", "Run", nil},
		column{"page", "Page", []dashboard.DynamicConfigValue{links("This seed on Oona's page", "${page}/runs/${run}/${layer}?seed=${__data.fields.Seed}")}},
		column{"traces", "Traces", []dashboard.DynamicConfigValue{links("Traces of this layer", tracesURL("${layer}"))}},
	).Span(12).Height(9).SortBy([]cog.Builder[common.TableSortByFieldState]{sortedBy("Rank").Desc(false)})
}

// seedsOfLayer shows how many seeds of the layer are in each state.
func seedsOfLayer() cog.Builder[dashboard.Panel] {
	return stacked("Seeds by state", "Seeds of the layer in each state of the lifecycle, in the last closed window.", "none", targets{
		query("A", "{{state}}", "sum by (state) ("+eldest(series("kasmina_layer_seeds", ofLayers))+")"),
	}).Overrides(stateColours()).Height(9)
}
