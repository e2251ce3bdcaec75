package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// The colours of verdicts. They differ in lightness too, and panels have the words beside
// them, for those who do not see red and green apart.
const (
	fine     = "#3f8f6b"
	warning  = "#f2b01e"
	critical = "#d92b3a"
	quiet    = "#8a8f98"
)

// verdicts maps the values of kasmina_layer_verdict to words and colours.
func verdicts() []dashboard.ValueMapping {
	return words(fine, "ok", warning, "warning", critical, "critical")
}

// words maps 0, 1, 2... to words. It takes pairs of a colour and a word.
func words(pairs ...string) []dashboard.ValueMapping {
	options := make(map[string]dashboard.ValueMappingResult)
	for i := 0; i+1 < len(pairs); i += 2 {
		options[fmt.Sprint(i/2)] = dashboard.ValueMappingResult{Color: &pairs[i], Text: &pairs[i+1], Index: ptr(int32(i / 2))}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}

// levels are thresholds: the colour of the least values, then values with the colour from there on.
func levels(base string, more ...any) cog.Builder[dashboard.ThresholdsConfig] {
	steps := []dashboard.Threshold{{Color: base}}
	for i := 0; i+1 < len(more); i += 2 {
		steps = append(steps, dashboard.Threshold{Value: ptr(more[i].(float64)), Color: more[i+1].(string)})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

// query asks for the course of an expression.
func query(ref, legend, expression string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().RefId(ref).Datasource(source).Expr(expression).LegendFormat(legend).
		EditorMode(prometheus.QueryEditorModeCode).Range()
}

// now asks for the values of an expression at the end of the time range.
func now(ref, expression string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().RefId(ref).Datasource(source).Expr(expression).
		EditorMode(prometheus.QueryEditorModeCode).Instant()
}

// cells asks for the rows of a table.
func cells(ref, expression string) *prometheus.DataqueryBuilder {
	return now(ref, expression).Format(prometheus.PromQueryFormatTable)
}

type targets []cog.Builder[variants.Dataquery]

func property(id string, value any) dashboard.DynamicConfigValue {
	return dashboard.DynamicConfigValue{Id: id, Value: value}
}

func fixed(colour string) dashboard.DynamicConfigValue {
	return property("color", map[string]any{"mode": "fixed", "fixedColor": colour})
}

// links are the data links of a column or of all series.
func links(titlesAndURLs ...string) dashboard.DynamicConfigValue {
	var all []map[string]any
	for i := 0; i+1 < len(titlesAndURLs); i += 2 {
		all = append(all, map[string]any{"title": titlesAndURLs[i], "url": titlesAndURLs[i+1]})
	}
	return property("links", all)
}

// dashboardURL is the address of another of the dashboards with the time range and with all
// variables but those that are given.
func dashboardURL(uid, given string) string {
	return "/d/" + uid + "?${__url_time_range}&${datasource:queryparam}&${namespace:queryparam}&${job:queryparam}&${prefix:queryparam}&${histogram:queryparam}&${sums:queryparam}&var-page=${page}&" + given
}

// shortStat shows one number.
func shortStat(title, description, unit, expression string, thresholds cog.Builder[dashboard.ThresholdsConfig]) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Description(description).Datasource(source).Unit(unit).
		Span(4).Height(4).Thresholds(thresholds).NoValue("none").
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeArea).Orientation(common.VizOrientationAuto).
		Targets(targets{query("A", title, expression)})
}

// lines shows courses.
func lines(title, description, unit string, t targets) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().Title(title).Description(description).Datasource(source).Unit(unit).
		Span(12).Height(8).Targets(t).LineWidth(1.5).FillOpacity(0).ShowPoints(common.VisibilityModeNever).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassicByName)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).Calcs([]string{})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
}

// byDecades makes the axis of a panel logarithmic, but for values around zero, so that one
// sees what is usual beside what has exploded.
func byDecades(p *timeseries.PanelBuilder) *timeseries.PanelBuilder {
	return p.ScaleDistribution(common.NewScaleDistributionConfigBuilder().Type(common.ScaleDistributionSymlog).Log(10).LinearThreshold(0.001))
}

// stacked shows parts of a whole.
func stacked(title, description, unit string, t targets) *timeseries.PanelBuilder {
	return lines(title, description, unit, t).FillOpacity(60).LineWidth(0).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
}

// timeline shows how states change. Its rows are in the order of the queries.
func timeline(title, description string, mappings []dashboard.ValueMapping, t targets) *statetimeline.PanelBuilder {
	return statetimeline.NewPanelBuilder().Title(title).Description(description).Datasource(source).
		Span(24).Height(11).Targets(t).Mappings(mappings).MergeValues(true).RowHeight(0.85).FillOpacity(90).LineWidth(0).
		ShowValue(common.VisibilityModeNever).AlignValue(common.TimelineValueAlignmentLeft).PerPage(30).
		Thresholds(levels(quiet)).ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).Calcs([]string{})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle).Sort(common.SortOrderNone))
}

// column is a column of a table: the label that it shows, or "Value #A" for the values of
// query A, its name, and what else there is to say of it.
type column struct {
	of, name string
	more     []dashboard.DynamicConfigValue
}

// grid is a table of the columns, in their order. Rows of its queries with the same labels
// become one row.
func grid(title, description string, t targets, columns ...column) *table.PanelBuilder {
	names, places := make(map[string]string), make(map[string]int)
	p := table.NewPanelBuilder().Title(title).Description(description).Datasource(source).Unit("short").
		Span(24).Height(8).Targets(t).NoValue("").ShowHeader(true).Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{})).CellHeight(common.TableCellHeightSm)
	for i, c := range columns {
		names[c.of], places[c.of] = c.name, i
		if len(c.more) > 0 {
			p.OverrideByName(c.name, c.more)
		}
	}
	p.WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}})
	p.WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
		"excludeByName": map[string]bool{"Time": true}, "renameByName": names, "indexByName": places,
	}})
	return p
}

func sortedBy(name string) *common.TableSortByFieldStateBuilder {
	return common.NewTableSortByFieldStateBuilder().DisplayName(name).Desc(true)
}

// coloured makes the background of a cell that of its value.
func coloured() dashboard.DynamicConfigValue {
	return property("custom.cellOptions", map[string]any{"type": "color-background", "mode": "basic"})
}

// found returns an expression with the label that a column with a link needs, only if the
// variable is set: a label that is empty does not exist, so there is no column either.
func found(expression, variable string) string {
	return fmt.Sprintf(`label_replace(%s, %q, "$%s", "", "")`, expression, variable, variable)
}

// thresholds are those of a column.
func thresholds(base string, more ...any) dashboard.DynamicConfigValue {
	steps, err := levels(base, more...).Build()
	if err != nil {
		panic(err) // the arguments are constants
	}
	return property("thresholds", steps)
}
