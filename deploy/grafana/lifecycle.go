package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// lifecycle shows what becomes of the seeds.
func lifecycle() *board {
	return newBoard("oona-lifecycle", "Oona / Lifecycle",
		"What becomes of the seeds: how many are in which state, where they go, and how many of them are fossilized or culled.",
		variables(theRun(), theLayers(), theMetric())...).
		annotated().
		row("Now", lifecycleStats()...).
		row("States", seedsByState().Span(24).Height(9)).
		row("Transitions and ends",
			lines("Seeds that came and went", "How many more seeds (above zero) or fewer (below) are in a state than at the time before. These are differences of counts: a seed that comes and another that goes cancel each other out.", "none", targets{
				query("A", "{{state}}", "sum by (state) ("+eldest(seeds("")+" - "+seeds("")+" offset $__rate_interval")+")"),
			}).DrawStyle(common.GraphDrawStyleBars).FillOpacity(70).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A")).
				Overrides(stateColours()),
			lines("How seeds end", "Share of all seeds that are in a state which they never leave.", "percentunit", targets{
				query("A", "fossilized", share(`state="FOSSILIZED"`)),
				query("B", "culled", share(`state="CULLED"`)),
				query("C", "cancelled", share(`state="CANCELLED"`)),
				query("D", "rolled back", share(`state="ROLLED_BACK"`)),
			}).Min(0).
				OverrideByName("fossilized", []dashboard.DynamicConfigValue{fixed(colourOf["FOSSILIZED"])}).
				OverrideByName("culled", []dashboard.DynamicConfigValue{fixed(colourOf["CULLED"])}).
				OverrideByName("cancelled", []dashboard.DynamicConfigValue{fixed(colourOf["CANCELLED"])}).
				OverrideByName("rolled back", []dashboard.DynamicConfigValue{fixed(colourOf["ROLLED_BACK"])}),
		).
		row("Layers", lifecycleTable())
}

func seeds(state string) string {
	if state == "" {
		return series("kasmina_layer_seeds", ofLayers)
	}
	return series("kasmina_layer_seeds", ofLayers, state)
}

// share is the part of all seeds that is in a state.
func share(state string) string {
	return "sum(" + eldest(seeds(state)) + ") / sum(" + eldest(seeds("")) + ")"
}

func lifecycleStats() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		shortStat("Seeds", "Seeds in the last closed windows.", "none", "sum("+eldest(seeds(""))+")", levels(quiet)),
		shortStat("Active", "Seeds in TRAINING, GRAFTING or FINE_TUNING.", "none", "sum("+once(series("kasmina_layer_seeds_active", ofLayers))+")", levels(quiet)),
		shortStat("Under way", "Share of the seeds that have begun and not ended.", "percentunit", share(`state=~"GERMINATED|TRAINING|GRAFTING|STABILIZATION|EVALUATING|FINE_TUNING"`), levels(quiet)),
		shortStat("Fossilized", "Share of the seeds that are part of the network for good.", "percentunit", share(`state="FOSSILIZED"`), levels(fine)),
		shortStat("Culled", "Share of the seeds that were taken out.", "percentunit", share(`state="CULLED"`), levels(quiet, 0.25, warning, 0.5, critical)),
		shortStat("Rolled back", "Share of the seeds whose graft was undone.", "percentunit", share(`state="ROLLED_BACK"`), levels(quiet, 0.1, warning, 0.25, critical)),
	}
}

// lifecycleTable compares the layers.
func lifecycleTable() cog.Builder[dashboard.Panel] {
	all := fmt.Sprintf("sum by (run, layer) (%s)", eldest(seeds("")))
	of := func(state string) string {
		return found(fmt.Sprintf("(sum by (run, layer) (%s) / %s) and topk(%d, %s)", eldest(seeds(state)), all, most, all), "page")
	}
	percent := property("unit", "percentunit")
	return grid("Layers", fmt.Sprintf("What became of the seeds of each layer; of the %d layers with the most seeds.", most), targets{
		cells("A", found(fmt.Sprintf("topk(%d, %s)", most, all), "page")),
		cells("B", of(`state=~"TRAINING|GRAFTING|FINE_TUNING"`)),
		cells("C", of(`state="FOSSILIZED"`)),
		cells("D", of(`state="CULLED"`)),
		cells("E", of(`state=~"CANCELLED|ROLLED_BACK"`)),
	},
		column{"layer", "Layer", []dashboard.DynamicConfigValue{links("This layer", dashboardURL("oona-layer", "var-run=${run}&var-layer=${__value.text}"))}},
		column{"Value #A", "Seeds", []dashboard.DynamicConfigValue{property("unit", "none")}},
		column{"Value #B", "Active", []dashboard.DynamicConfigValue{percent}},
		column{"Value #C", "Fossilized", []dashboard.DynamicConfigValue{percent}},
		column{"Value #D", "Culled", []dashboard.DynamicConfigValue{percent, coloured(), thresholds(quiet, 0.25, warning, 0.5, critical)}},
		column{"Value #E", "Cancelled or rolled back", []dashboard.DynamicConfigValue{percent}},
		column{"page", "Page", []dashboard.DynamicConfigValue{links("On Oona's page", "${page}/runs/${run}/${__data.fields.Layer}")}},
		column{"run", "Run", nil},
	).SortBy([]cog.Builder[common.TableSortByFieldState]{sortedBy("Culled")})
}
