package draw

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Answer is what Prometheus says to the queries of a panel.
type Answer struct {
	panel   *Panel
	Panel   string
	Targets []Answered
}

// Answered is the answer to one query.
type Answered struct {
	Target Target
	Query  string // with the values of variables
	Series []Series
}

// Ask sends all queries of a dashboard.
func (d *Dashboard) Ask(ctx context.Context, p Prometheus, values Values, over Span) (all []Answer, err error) {
	for i := range d.Panels {
		panel := &d.Panels[i]
		one := Answer{panel: panel, Panel: values.Substitute(panel.Title)}
		for _, t := range panel.Targets {
			asked := over
			if panel.Type == "heatmap" { // of narrower columns one sees nothing
				asked.Step = max(over.Step, over.To.Sub(over.From)/60).Truncate(time.Second)
			}
			query := values.Substitute(t.Expr)
			series, err := p.Ask(ctx, query, t.Instant, asked)
			if err != nil {
				return nil, fmt.Errorf("%s, panel %q, query %s: %w", d.UID, panel.Title, t.RefID, err)
			}
			one.Targets = append(one.Targets, Answered{t, query, series})
		}
		all = append(all, one)
	}
	return all, nil
}

func timeOf(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1e3)).UTC() }

// course is a series with its name and how it is shown.
type course struct {
	name   string
	points []Point
	field  Field
	colour string
}

// courses returns the series of a panel, in the order in which Grafana shows them.
func (a Answer) courses() (all []course, err error) {
	for _, t := range a.Targets {
		for _, s := range t.Series {
			name := legend(t.Target.LegendFormat, s.Metric)
			f, err := a.panel.Field(name)
			if err != nil {
				return nil, err
			}
			colour := f.Color.FixedColor
			if f.Color.Mode != "fixed" {
				colour = palette[len(all)%len(palette)]
			}
			all = append(all, course{name, s.Values, f, colour})
		}
	}
	return all, nil
}

// legend puts labels into a legend such as {{layer}}.
func legend(format string, labels map[string]string) string {
	for name, value := range labels {
		format = strings.ReplaceAll(format, "{{"+name+"}}", value)
	}
	if format == "" {
		text, _ := json.Marshal(labels)
		return string(text)
	}
	for { // labels that the series lacks are empty
		from, rest, found := strings.Cut(format, "{{")
		if !found {
			return strings.TrimSpace(format)
		}
		_, rest, _ = strings.Cut(rest, "}}")
		format = from + rest
	}
}

// Row is a row of a table: the text of its labels and the values of its queries, by the
// names of columns.
type Row struct {
	Text   map[string]string
	Values map[string]float64
}

// Table returns the columns and rows of a table, after its transformations, and sorted as
// it says.
func (a Answer) Table() (columns []string, rows []Row) {
	found := make(map[string]*Row)
	var order []string
	for _, t := range a.Targets {
		name := "Value #" + t.Target.RefID
		if len(a.Targets) == 1 {
			name = "Value"
		}
		for _, s := range t.Series {
			text, _ := json.Marshal(s.Metric)
			row := found[string(text)]
			if row == nil {
				row = &Row{maps.Clone(s.Metric), make(map[string]float64)}
				delete(row.Text, "__name__")
				found[string(text)] = row
				order = append(order, string(text))
			}
			row.Values[name] = s.Value.V
		}
	}
	for _, key := range order {
		rows = append(rows, *found[key])
	}
	return a.organized(rows)
}

// organized renames and orders columns as the transformation organize does.
func (a Answer) organized(rows []Row) ([]string, []Row) {
	names, places := map[string]string{}, map[string]int{}
	for _, t := range a.panel.Transformations {
		if t.ID == "organize" {
			names, places = t.Options.RenameByName, t.Options.IndexByName
		}
	}
	place, columns := make(map[string]int), []string{}
	rename := func(name string) string {
		shown := cmp.Or(names[name], name)
		if _, known := place[shown]; !known {
			at, ok := places[name]
			if !ok {
				at = 1000
			}
			place[shown] = at
			columns = append(columns, shown)
		}
		return shown
	}
	for i, r := range rows {
		out := Row{make(map[string]string), make(map[string]float64)}
		for _, name := range slices.Sorted(maps.Keys(r.Text)) {
			out.Text[rename(name)] = r.Text[name]
		}
		for _, name := range slices.Sorted(maps.Keys(r.Values)) {
			out.Values[rename(name)] = r.Values[name]
		}
		rows[i] = out
	}
	slices.SortStableFunc(columns, func(a, b string) int { return cmp.Compare(place[a], place[b]) })
	for _, by := range slices.Backward(a.panel.Options.SortBy) {
		slices.SortStableFunc(rows, func(x, y Row) int {
			order := cmp.Or(cmp.Compare(x.Values[by.DisplayName], y.Values[by.DisplayName]), cmp.Compare(x.Text[by.DisplayName], y.Text[by.DisplayName]))
			if by.Desc {
				return -order
			}
			return order
		})
	}
	return columns, rows
}

// Named returns the series of a panel with their names, in the order in which Grafana
// shows them.
func (a Answer) Named() (names []string, series []Series, err error) {
	all, err := a.courses()
	for i, t := 0, 0; t < len(a.Targets); t++ {
		for _, s := range a.Targets[t].Series {
			if i < len(all) {
				names, series = append(names, all[i].name), append(series, s)
			}
			i++
		}
	}
	return names, series, err
}
