package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// most is how many layers a part of a panel shows. A network may have thousands.
const most = 40

// network says which layers are unhealthy, worst first, and why.
func network() *board {
	return newBoard("oona-network", "Oona / Network",
		"Which layer of the network is unhealthy now, since when, and why.",
		variables(theRun(), theLayers(), theMetric())...).
		row("Now", networkStats()...).
		row("Layers, worst first", layersTimeline(), reasonsTable()).
		row("Course",
			stacked("Unhealthy layers", "Share of the layers by verdict. If most of them are unhealthy at once, look at the schedule, the data or the last step before you look at a layer.", "percentunit", targets{
				query("A", "critical", "avg("+once(verdict(ofLayers))+" == bool 2)"),
				query("B", "warning", "avg("+once(verdict(ofLayers))+" == bool 1)"),
			}).Min(0).Max(1).OverrideByName("critical", []dashboard.DynamicConfigValue{fixed(critical)}).OverrideByName("warning", []dashboard.DynamicConfigValue{fixed(warning)}),
			seedsByState(),
		).
		row("All layers together",
			byDecades(lines("Quantiles of $metric", "Of the samples of all chosen layers. Empty? Choose the other kind of histogram above.", "short", targets{
				query("A", "p99", quantile(0.99, allSamples())).Exemplar(true),
				query("B", "p50", quantile(0.5, allSamples())),
				query("C", "p99", quantile(0.99, recordedSamples())),
				query("D", "p50", quantile(0.5, recordedSamples())),
			})),
			runsTable(),
		)
}

func allSamples() string {
	return histogram(sums+"_(health|performance)", ofLayers, `metric="$metric"`)
}

func recordedSamples() string {
	return "sum by (le) (" + recorded("_(health|performance)$histogram:rate5m", `metric="$metric"`) + ")"
}

func verdict(by string) string { return series("kasmina_layer_verdict", by) }

func networkStats() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		shortStat("Critical layers", "Layers whose verdict is critical.", "none",
			"sum("+once(verdict(ofLayers))+" == bool 2)", levels(fine, 1.0, critical)),
		shortStat("Warnings", "Layers whose verdict is warning.", "none",
			"sum("+once(verdict(ofLayers))+" == bool 1)", levels(fine, 1.0, warning)),
		shortStat("Layers", "Layers that are shown. A layer that has been silent for five minutes (--series-silent-after) disappears.", "none",
			"count("+once(series("kasmina_layer_seeds_seen", ofLayers))+")", levels(quiet)),
		shortStat("Active seeds", "Seeds in TRAINING, GRAFTING or FINE_TUNING, in the last closed windows.", "none",
			"sum("+once(series("kasmina_layer_seeds_active", ofLayers))+")", levels(quiet)),
		shortStat("Age of the last window", "Time since the end of the newest window. If it grows, the run has ended (the table Runs says so if its trainer does) or its frames do not arrive.", "s",
			"time() - max("+once(named("kasmina_layer_(health|performance)_window_end_timestamp_seconds", ofLayers))+")", levels(fine, 60.0, warning, 300.0, critical)),
		shortStat("Delay", "From the last observation of a window to the record that closed it; of the slowest layer.", "s",
			"max("+once(series("kasmina_layer_window_delay_seconds", ofLayers))+")", levels(fine, 30.0, warning, 120.0, critical)),
	}
}

// layersTimeline has the layers that are critical at the end of the time range, then those
// with a warning, then those that were unhealthy before, then healthy ones. Prometheus
// sorts a course by its labels, so the order comes from the queries.
func layersTimeline() cog.Builder[dashboard.Panel] {
	course := once(verdict(ofLayers))
	last := once("last_over_time(" + verdict(ofLayers) + "[$__range] @ end())")
	worst := once("max_over_time(" + verdict(ofLayers) + "[$__range] @ end())")
	which := func(condition string) string { return fmt.Sprintf("%s and topk(%d, %s)", course, most, condition) }
	return timeline("Verdict on each layer", fmt.Sprintf("Critical layers first, then those with a warning, then those that were unhealthy in this time, then healthy ones; at most %d of each. A gap: the layer is silent, or too new to be judged.", most), verdicts(), targets{
		query("A", "{{layer}}", which(last+" == 2")),
		query("B", "{{layer}}", which(last+" == 1")),
		query("C", "{{layer}}", which("("+last+" == 0) and ("+worst+" > 0)")),
		query("D", "{{layer}}", which(worst+" == 0")),
	}).DataLinks([]cog.Builder[dashboard.DashboardLink]{
		dashboard.NewDashboardLinkBuilder("Layer ${__field.labels.layer}").Url(dashboardURL("oona-layer", "var-run=${run}&var-layer=${__field.labels.layer}")),
	})
}

// reasonsTable says why layers are unhealthy.
func reasonsTable() *table.PanelBuilder {
	reason := fmt.Sprintf("topk(100, max by (run, layer, metric, kind) (%s))", series("kasmina_layer_verdict_reason", ofLayers))
	linked := func(expression string) string { return found(found(expression, "page"), "traces") }
	// beside returns values in the rows of the reasons.
	beside := func(values, without string) string {
		return linked(fmt.Sprintf("(%s > bool 0) * ignoring (%s) group_left () %s", reason, without, values))
	}
	ofMetric := func(name string) string {
		return beside(fmt.Sprintf("max by (run, layer, metric) (%s)", named("kasmina_layer_(health|performance)_"+name, ofLayers)), "kind")
	}
	since := fmt.Sprintf("min by (run, layer) (%s)", series("kasmina_layer_verdict_since_timestamp_seconds", ofLayers))
	return grid("Why", "The reasons of all verdicts that are not ok: which metric, what is wrong, the median of the last window and the range in which it was expected, and since when the layer has this verdict.", targets{
		cells("A", linked(reason)),
		cells("B", "1000 * "+beside(since, "metric, kind")),
		cells("C", ofMetric("window_median")),
		cells("D", ofMetric("expected_low")),
		cells("E", ofMetric("expected_high")),
	},
		column{"Value #A", "Level", []dashboard.DynamicConfigValue{coloured(), property("mappings", verdicts()), property("custom.width", 90)}},
		column{"layer", "Layer", []dashboard.DynamicConfigValue{links("This layer", dashboardURL("oona-layer", "var-run=${run}&var-layer=${__value.text}"))}},
		column{"metric", "Metric", nil},
		column{"kind", "What is wrong", nil},
		column{"Value #C", "Median", nil},
		column{"Value #D", "Expected from", nil},
		column{"Value #E", "to", nil},
		column{"Value #B", "Since", []dashboard.DynamicConfigValue{property("unit", "dateTimeFromNow")}},
		column{"page", "Page", []dashboard.DynamicConfigValue{links("On Oona's page", "${page}/runs/${run}/${__data.fields.Layer}")}},
		column{"traces", "Traces", []dashboard.DynamicConfigValue{links("Traces of this layer", tracesURL("${__data.fields.Layer}"))}},
		column{"run", "Run", nil},
	).SortBy([]cog.Builder[common.TableSortByFieldState]{sortedBy("Level")})
}

// states are those of the lifecycle, in their order, with the colours that they have in all panels.
var states = []struct{ name, colour string }{
	{"DORMANT", "#5a6270"}, {"GERMINATED", "#9ac48a"}, {"TRAINING", "#3274d9"}, {"GRAFTING", "#8f6bd1"}, {"STABILIZATION", "#56b4c9"},
	{"EVALUATING", "#c8b04a"}, {"FINE_TUNING", "#d683ce"}, {"FOSSILIZED", "#3f8f6b"}, {"CULLED", "#d92b3a"}, {"CANCELLED", "#b5651d"}, {"ROLLED_BACK", "#f28c28"},
}

var colourOf = func() map[string]string {
	all := make(map[string]string)
	for _, s := range states {
		all[s.name] = s.colour
	}
	return all
}()

func stateColours() (all []cog.Builder[dashboard.DashboardFieldConfigSourceOverrides]) {
	for _, s := range states {
		all = append(all, dashboard.NewDashboardFieldConfigSourceOverridesBuilder().
			Matcher(dashboard.MatcherConfig{Id: "byName", Options: s.name}).Properties([]dashboard.DynamicConfigValue{fixed(s.colour)}))
	}
	return all
}

// seedsByState shows how many seeds are in each state of their lifecycle.
func seedsByState() *timeseries.PanelBuilder {
	return stacked("Seeds by state", "Seeds of all chosen layers in each state of the lifecycle, in the last closed windows.", "none", targets{
		query("A", "{{state}}", "sum by (state) ("+eldest(named(sums+"_seeds", ofLayers))+")"),
		query("B", "{{state}}", "sum by (state) ("+recorded("_seeds:sum")+")"),
	}).Overrides(stateColours())
}

// runsTable lists the runs of the installation that were heard last.
func runsTable() cog.Builder[dashboard.Panel] {
	heard := fmt.Sprintf("max by (run) (%s)", series("kasmina_run_last_rollup_timestamp_seconds", installation))
	of := func(expression string) string {
		return found(fmt.Sprintf("%s and on (run) topk(%d, %s)", expression, most, heard), "page")
	}
	judged := func(level int) string {
		return fmt.Sprintf("sum by (run) (max by (run, layer) (%s) == bool %d)", verdict(installation), level)
	}
	ended := func(outcome string, value int) string {
		return fmt.Sprintf("%d * max by (run) (%s > bool 0)", value, series("kasmina_run_end_timestamp_seconds", installation, `outcome="`+outcome+`"`))
	}
	state := fmt.Sprintf("(%s or %s or max by (run) (%s))", ended("FAILED", 4), ended("STOPPED", 3), series("kasmina_run_state", installation))
	return grid("Runs", "The last runs of this installation, whichever is chosen above. live: rollups arrive; completed, stopped, failed: how the run ended, as its trainer said; silent: the run has died, or has ended without saying so.", targets{
		cells("A", of(state)),
		cells("B", of("1000 * "+heard)),
		cells("C", of(fmt.Sprintf("count by (run) (max by (run, layer) (%s))", series("kasmina_layer_seeds_seen", installation)))),
		cells("D", of(judged(2))),
		cells("E", of(judged(1))),
	},
		column{"run", "Run", []dashboard.DynamicConfigValue{links("This run", dashboardURL("oona-network", "var-run=${__value.text}"))}},
		column{"Value #A", "State", []dashboard.DynamicConfigValue{property("mappings", words(quiet, "silent", fine, "live", quiet, "completed", quiet, "stopped", critical, "failed"))}},
		column{"Value #B", "Last heard", []dashboard.DynamicConfigValue{property("unit", "dateTimeFromNow")}},
		column{"Value #C", "Layers", nil},
		column{"Value #D", "Critical", nil},
		column{"Value #E", "Warnings", nil},
		column{"page", "Page", []dashboard.DynamicConfigValue{links("On Oona's page", "${page}/runs/${__data.fields.Run}")}},
	).Span(12).SortBy([]cog.Builder[common.TableSortByFieldState]{sortedBy("Last heard")})
}

// tracesURL searches Jaeger for the windows of a layer of the run.
func tracesURL(layer string) string {
	panes := `{"oona":{"datasource":"DATASOURCE","queries":[{"refId":"A","queryType":"search","service":"oona-aggregate","tags":"oona.run=RUN oona.layer=LAYER"}],"range":{"from":"FROM","to":"TO"}}}`
	variables := strings.NewReplacer("DATASOURCE", "${traces}", "RUN", "${run}", "LAYER", layer, "FROM", "${__from}", "TO", "${__to}")
	return "/explore?schemaVersion=1&panes=" + variables.Replace(url.QueryEscape(panes))
}
