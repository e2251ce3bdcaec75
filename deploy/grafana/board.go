package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// tag is on each of the dashboards, and the links between them go by it.
const tag = "oona"

// board builds one dashboard.
type board struct{ *dashboard.DashboardBuilder }

func newBoard(uid, title, description string, variables ...cog.Builder[dashboard.VariableModel]) *board {
	b := dashboard.NewDashboardBuilder(title).Uid(uid).Description(description).Tags([]string{tag}).
		Readonly().Time("now-30m", "now").Refresh("30s").Timezone("browser").Version(1).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Variables(variables).
		Link(dashboard.NewDashboardLinkBuilder("Oona's dashboards").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{tag}).IncludeVars(true).KeepTime(true))
	return &board{b}
}

// annotated marks the times at which seeds of the layers entered a state, from events of
// seeds. There are none if trainers send no events.
func (b *board) annotated() *board {
	for _, of := range []struct{ name, state string }{
		{"Germinated", "GERMINATED"}, {"Grafted", "GRAFTING"}, {"Fossilized", "FOSSILIZED"}, {"Culled", "CULLED"},
	} {
		b.Annotation(dashboard.NewAnnotationQueryBuilder().Name(of.name).Datasource(source).Enable(true).IconColor(colourOf[of.state]).
			Expr("1000 * max by (run, layer, state) (" + series("kasmina_layer_transition_timestamp_seconds", ofLayers, `state="`+of.state+`"`) + ")").
			Step("15s").UseValueForTime(true).TitleFormat("{{layer}}").TextFormat("{{state}}").TagKeys("layer,state"))
	}
	return b
}

// row begins a row of panels.
func (b *board) row(title string, panels ...cog.Builder[dashboard.Panel]) *board {
	b.WithRow(dashboard.NewRowBuilder(title))
	for _, p := range panels {
		b.WithPanel(p)
	}
	return b
}

// build numbers the panels, as the SDK does not, and links to a panel go by its number.
func (b *board) build() (dashboard.Dashboard, error) {
	d, err := b.Build()
	if err != nil {
		return d, err
	}
	for i, p := range d.Panels {
		id := uint32(i + 1)
		if p.Panel != nil {
			p.Panel.Id = &id
		} else {
			p.RowPanel.Id = id
		}
	}
	return d, nil
}
