package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func ptr[T any](v T) *T { return &v }

// source is the data source of every panel and variable: the one that is chosen.
var source = common.DataSourceRef{Type: ptr("prometheus"), Uid: ptr("$datasource")}

func text(s string) dashboard.StringOrMap { return dashboard.StringOrMap{String: &s} }

func option(text, value string) dashboard.VariableOption {
	return dashboard.VariableOption{
		Text:  dashboard.StringOrArrayOfString{String: &text},
		Value: dashboard.StringOrArrayOfString{String: &value},
	}
}

// variables are those of every dashboard, so that links between them can keep all. The
// caller gives those of runs, layers and metrics.
func variables(chosen ...cog.Builder[dashboard.VariableModel]) []cog.Builder[dashboard.VariableModel] {
	all := []cog.Builder[dashboard.VariableModel]{
		dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"),
		many("namespace", "Namespace", `label_values(oona_build_info, namespace)`),
		many("job", "Job", `label_values(oona_build_info{namespace=~"$namespace"}, job)`),
		ask("prefix", "Prefix", `label_values(oona_build_info{namespace=~"$namespace", job=~"$job"}, prefix)`),
	}
	all = append(all, chosen...)
	return append(all,
		dashboard.NewCustomVariableBuilder("histogram").Label("Histograms").
			Description("Which kind of histogram Prometheus stores of Oona. If panels of quantiles stay empty, choose the other one.").
			Values(text("native : (),classic : _bucket")).
			Options([]dashboard.VariableOption{option("native", "()"), option("classic", "_bucket")}).
			Current(option("native", "()")).AllowCustomValue(false),
		dashboard.NewCustomVariableBuilder("sums").Label("Sums").
			Description("recorded: panels that add up all layers show the recorded sums of deploy/prometheus/network-recording.yml. That is for thousands of layers.").
			Values(text("live : kasmina,recorded : run:kasmina")).
			Options([]dashboard.VariableOption{option("live", "kasmina"), option("recorded", "run:kasmina")}).
			Current(option("live", "kasmina")).AllowCustomValue(false),
		dashboard.NewDatasourceVariableBuilder("traces").Label("Traces").Type("jaeger").
			Description("The Jaeger that has the traces. Tables link to it."),
		dashboard.NewTextBoxVariableBuilder("page").Label("Page").Hide(dashboard.VariableHideHideVariable).
			Description("The address of Oona's page, for example https://oona.example.com. Tables link to it. Without an address there are no such links.").
			DefaultValue(text("")),
	)
}

// ask is a variable with one value, which comes from Prometheus.
func ask(name, label, query string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(source).Query(text(query)).Definition(query).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortNaturalAsc).AllowCustomValue(false)
}

// many is a variable with all values, unless some are chosen. "All" is also right for
// series that lack the label, as all have no namespace outside Kubernetes.
func many(name, label, query string) *dashboard.QueryVariableBuilder {
	return ask(name, label, query).Multi(true).IncludeAll(true).AllValue(".*").
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
}

// theRun lists the runs, the one that was last heard of first.
func theRun() cog.Builder[dashboard.VariableModel] {
	return ask("run", "Run", `query_result(topk(200, max by (run) (`+series("kasmina_run_last_rollup_timestamp_seconds", installation)+`)))`).
		Regex(`/run="([^"]+)"/`).Sort(dashboard.VariableSortDisabled)
}

func theLayers() cog.Builder[dashboard.VariableModel] {
	return many("layer", "Layer", `label_values(`+series("kasmina_layer_seeds_seen", ofRun)+`, layer)`)
}

func theMetric() cog.Builder[dashboard.VariableModel] {
	return ask("metric", "Metric", `label_values(`+named("kasmina_layer_(health|performance)_window_mean", ofLayers)+`, metric)`).
		Current(option("gradient_norm", "gradient_norm"))
}
