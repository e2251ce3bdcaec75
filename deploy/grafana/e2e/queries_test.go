package e2e

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/deploy/grafana/draw"
)

// empty has the queries that need no results, by dashboard, panel and query, with the reason.
var empty = map[string]string{
	"oona-network/Verdict on each layer/C": "no layer recovers in this run",
	"oona-system/Certificates/A":           "the workers have no TLS",
	"oona-system/Remote write/A":           "there is no receiver",
	"oona-system/Remote write/B":           "there is no receiver",
	"oona-system/Remote write/C":           "there is no receiver",
	"oona-system/Remote write/D":           "there is no receiver",
	"oona-system/Spool/A":                  "there is no spool",
	"oona-system/Spool/B":                  "there is no spool",
	"oona-system/Spools in trouble/A":      "there is no spool",
	"oona-system/Spools in trouble/B":      "there is no spool",
	"oona-system/Spools in trouble/C":      "there is no spool",
	"oona-system/Spools in trouble/D":      "there is no spool",
	"oona-system/Spools in trouble/E":      "there is no spool",
}

// checkQueries sends each query of each panel, for both kinds of histogram, with the values that
// variables have when a dashboard is opened, and then with each value that a variable may have.
func checkQueries(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard) {
	asked := 0
	for _, d := range boards {
		for kind, p := range map[string]draw.Prometheus{"()": w.native, "_bucket": w.classic} {
			given := draw.Values{"histogram": kind}
			asked += checkData(t, ctx, d, p, given, w.over, func(query string) bool { return !isRecorded(query) })
			asked += checkData(t, ctx, d, p, draw.Values{"histogram": kind, "sums": "run:kasmina"}, w.over, isRecorded)
			if kind != "()" {
				continue
			}
			values, err := d.Defaults(ctx, p, given, w.over)
			if err != nil {
				t.Fatal(err)
			}
			for _, variable := range d.Templating.List {
				choices, err := p.Choices(ctx, variable, values, w.over)
				if err != nil {
					t.Fatal(err)
				}
				if variable.Type == "query" && len(choices) == 0 {
					t.Errorf("%s: variable %s has no values", d.UID, variable.Name)
				}
				for _, value := range choices {
					if variable.Type == "query" && variable.Name != "job" {
						asked += checkData(t, ctx, d, p, draw.Values{"histogram": kind, variable.Name: value}, w.over, func(query string) bool {
							return !isRecorded(query) && strings.Contains(query, "$"+variable.Name) && needed(variable.Name, value, query)
						})
					}
				}
			}
		}
	}
	t.Logf("%d queries", asked)
}

// isRecorded reports whether a query is for recorded sums.
func isRecorded(query string) bool {
	return strings.Contains(query, "${sums}") && (strings.Contains(query, ":sum") || strings.Contains(query, ":rate5m"))
}

// needed reports whether a query must have data for a value of a variable. A healthy layer has no
// reasons, a run of ten seconds has no verdict, and not every metric has a rule.
func needed(variable, value, query string) bool {
	judged := strings.Contains(query, "verdict") || strings.Contains(query, "expected_") || strings.Contains(query, "window_median")
	switch variable {
	case "layer":
		return !judged || value == sick && !strings.Contains(query, "topk(40")
	case "run":
		return !judged && !strings.Contains(query, "rate(") || value == run && !strings.Contains(query, "topk(40")
	case "metric":
		return !judged || value == "gradient_norm"
	}
	return true
}

// checkData sends the queries of a dashboard that which selects, checks that they have data, and
// returns the number of all queries.
func checkData(t *testing.T, ctx context.Context, d *draw.Dashboard, p draw.Prometheus, given draw.Values, over draw.Span, which func(query string) bool) (n int) {
	t.Helper()
	values, err := d.Defaults(ctx, p, given, over)
	if err != nil {
		t.Fatal(err)
	}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			if n++; !which(target.Expr) {
				continue
			}
			series, err := p.Ask(ctx, values.Substitute(target.Expr), target.Instant, over)
			name := d.UID + "/" + panel.Title + "/" + target.RefID
			switch {
			case err != nil:
				t.Errorf("%s with %v: %v", name, given, err)
			case slices.ContainsFunc(series, shown):
			case empty[name] == "":
				t.Errorf("%s has no data with %v: %s", name, given, values.Substitute(target.Expr))
			}
		}
	}
	return n
}

// shown reports whether a series has a value that a panel can show.
func shown(s draw.Series) bool {
	if s.Value != nil {
		return !math.IsNaN(s.Value.V)
	}
	for _, h := range s.Histograms {
		if len(h.Buckets) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(s.Values, func(p draw.Point) bool { return !math.IsNaN(p.V) && !math.IsInf(p.V, 0) })
}

// checkSick checks that the dashboards show first which layer is sick, and why.
func checkSick(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard) {
	v := open(t, ctx, boards["oona-network"], w.native, nil, w.over)
	names, _, err := v.panel("Verdict on each layer").Named()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != len(layers) || names[0] != sick || names[1] != worse {
		t.Errorf("the layers are in the order %q, want %s and %s first", names, sick, worse)
	}
	first := v.rows("Why")[0]
	if first.Text["Layer"] != sick || first.Text["Metric"] != "gradient_norm" || first.Text["What is wrong"] != "high" || first.Values["Level"] != 2 {
		t.Errorf("the first reason is %v", first)
	}
	if first.Values["Median"] <= first.Values["to"] || math.IsNaN(first.Values["to"]) {
		t.Errorf("the median %v is not above the expected range, to %v", first.Values["Median"], first.Values["to"])
	}
	v.is("Critical layers", "", 1, 0)
	values, err := boards["oona-layer"].Defaults(ctx, w.native, nil, w.over)
	if err != nil {
		t.Fatal(err)
	}
	if values["layer"] != sick || values["run"] != run {
		t.Errorf("the dashboard Layer opens with %s of %s", values["layer"], values["run"])
	}
}

// checkLinks checks that tables have the columns of links only if there is something to
// link to.
func checkLinks(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard) {
	const page = "https://oona.example.com"
	for title, uid := range map[string]string{"Why": "oona-network", "Runs": "oona-network", "Worst seeds": "oona-layer", "Layers": "oona-lifecycle"} {
		for _, given := range []string{"", page} {
			v := open(t, ctx, boards[uid], w.native, draw.Values{"page": given}, w.over)
			columns, _ := v.panel(title).Table()
			if slices.Contains(columns, "Page") != (given != "") {
				t.Errorf("%s, panel %q: with page %q the columns are %q", uid, title, given, columns)
			}
			if given != "" && v.rows(title)[0].Text["Page"] != page {
				t.Errorf("%s, panel %q: the page is %q", uid, title, v.rows(title)[0].Text["Page"])
			}
		}
	}
	v := open(t, ctx, boards["oona-network"], w.native, draw.Values{"traces": "jaeger"}, w.over)
	if first := v.rows("Why")[0]; first.Text["Traces"] != "jaeger" {
		t.Errorf("with a Jaeger the first reason is %v", first)
	}
}

// askReplicas sends a query for both exporters together and for each of them, at the end of a range. It
// returns the answers, and a text that says how they differ.
func askReplicas(t *testing.T, ctx context.Context, w *world, values draw.Values, expr string, over draw.Span, tolerance float64) (answers []map[string]float64, differs string) {
	t.Helper()
	for _, instance := range append([]string{".*"}, w.exporters...) {
		query := strings.ReplaceAll(expr, `job=~"$job"`, `job=~"$job", instance=~"`+instance+`"`)
		series, err := w.native.Ask(ctx, values.Substitute(query), true, over)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, byLabels(series))
	}
	for i, one := range answers[1:] {
		if !same(answers[0], one, tolerance) {
			differs = fmt.Sprintf("both exporters %v, exporter %d %v", answers[0], i, one)
		}
	}
	return answers, differs
}

// checkReplicas checks that the dashboards show the same numbers whether both exporters are scraped or
// only one.
func checkReplicas(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard) {
	compared := 0
	for _, uid := range []string{"oona-network", "oona-layer", "oona-lifecycle"} {
		d := boards[uid]
		values, err := d.Defaults(ctx, w.native, nil, w.over)
		if err != nil {
			t.Fatal(err)
		}
		values["__rate_interval"] = fmt.Sprintf("%ds", int(w.over.To.Sub(w.over.From).Seconds()))
		for _, panel := range d.Panels {
			for _, target := range panel.Targets {
				tolerance := 1e-9
				switch { // the exporters are scraped at different times, which makes a difference during a run
				case strings.Contains(target.Expr, "rate("):
					tolerance = 0.1
				case strings.Contains(target.Expr, " offset "):
					tolerance = math.Inf(1)
				}
				// A verdict that changes between the scrapes differs at one of these times, but not at all of them.
				var answers []map[string]float64
				differs := ""
				for _, earlier := range []time.Duration{0, 3 * time.Second, 7 * time.Second} {
					over := w.over
					over.To = over.To.Add(-earlier)
					answers, differs = askReplicas(t, ctx, w, values, target.Expr, over, tolerance)
					if differs == "" {
						break
					}
				}
				if differs != "" {
					t.Errorf("%s, panel %q, query %s: %s", uid, panel.Title, target.RefID, differs)
				}
				compared += len(answers[0])
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d series were compared", compared)
	}
}

func byLabels(all []draw.Series) map[string]float64 {
	values := make(map[string]float64)
	for _, s := range all {
		key := fmt.Sprint(s.Metric)
		if s.Value != nil {
			values[key] = s.Value.V
		} else if s.Histogram != nil {
			for _, b := range s.Histogram.Buckets {
				values[key] += b.Count
			}
		}
	}
	return values
}

func same(a, b map[string]float64, tolerance float64) bool {
	if len(a) != len(b) {
		return false
	}
	if math.IsInf(tolerance, 1) {
		return true
	}
	for key, v := range a {
		if other, ok := b[key]; !ok || !near(other, v, tolerance) && !(math.IsNaN(v) && math.IsNaN(other)) {
			return false
		}
	}
	return true
}
