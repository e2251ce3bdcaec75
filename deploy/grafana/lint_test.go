package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	grafana "github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// most bytes of a dashboard: a ConfigMap has at most 1 MiB, and kubectl apply keeps a copy
// in an annotation of at most 256 KiB.
const mostBytes = 200_000

// TestRules holds each dashboard to the rules of this file. TestRulesFind shows that they
// find what they are for.
func TestRules(t *testing.T) {
	for name, text := range files(t) {
		for _, fault := range faults(t, text) {
			t.Errorf("%s: %s", name, fault)
		}
	}
}

var nulls = regexp.MustCompile(`"(\w+)": null`)

// faults returns what is wrong with a dashboard.
func faults(t *testing.T, text []byte) (all []string) {
	t.Helper()
	var d dashboard.Dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	all = append(all, ofDashboard(d, text)...)
	all = append(all, ofVariables(d)...)
	for _, p := range panels(d) {
		for _, fault := range append(ofPanel(p), ofTargets(d, p)...) {
			all = append(all, fmt.Sprintf("panel %q: %s", value(p.Title), fault))
		}
	}
	return all
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func panels(d dashboard.Dashboard) (all []dashboard.Panel) {
	for _, p := range d.Panels {
		if p.Panel != nil {
			all = append(all, *p.Panel)
		} else {
			all = append(all, p.RowPanel.Panels...)
		}
	}
	return all
}

func ofDashboard(d dashboard.Dashboard, text []byte) (faults []string) {
	if len(text) > mostBytes {
		faults = append(faults, fmt.Sprintf("%d bytes, of %d at most", len(text), mostBytes))
	}
	if !strings.HasPrefix(value(d.Uid), "oona-") {
		faults = append(faults, "its uid does not begin with oona-")
	}
	if value(d.Editable) {
		faults = append(faults, "it can be edited, and the edits would be lost")
	}
	if value(d.Description) == "" || value(d.Title) == "" {
		faults = append(faults, "it has no title or no description")
	}
	for _, null := range nulls.FindAllSubmatch(text, -1) {
		if string(null[1]) != "value" { // of the first step of thresholds
			faults = append(faults, string(null[1])+" is null, which Grafana may not read")
		}
	}
	linked := false
	for _, l := range d.Links {
		linked = linked || l.Type == dashboard.DashboardLinkTypeDashboards && l.IncludeVars && l.KeepTime && len(l.Tags) == 1 && l.Tags[0] == tag
	}
	if !linked || len(d.Tags) != 1 || d.Tags[0] != tag {
		faults = append(faults, "it has no link to the other dashboards that keeps variables and time, or not their tag")
	}
	return faults
}

// needed are the variables that every dashboard has, so that links keep them.
var needed = []string{"datasource", "namespace", "job", "prefix", "run", "layer", "histogram", "page"}

func ofVariables(d dashboard.Dashboard) (faults []string) {
	found, sources := make(map[string]bool), 0
	for _, v := range d.Templating.List {
		found[v.Name] = true
		switch v.Type {
		case dashboard.VariableTypeDatasource:
			if value(v.Query.String) == "prometheus" {
				sources++
			}
		case dashboard.VariableTypeQuery:
			if v.Datasource == nil || value(v.Datasource.Uid) != "$datasource" {
				faults = append(faults, fmt.Sprintf("variable %s is not of $datasource", v.Name))
			}
			if value(v.Refresh) != dashboard.VariableRefreshOnTimeRangeChanged {
				faults = append(faults, fmt.Sprintf("variable %s is not read again when the time range changes", v.Name))
			}
			if value(v.IncludeAll) && value(v.AllValue) != ".*" {
				faults = append(faults, fmt.Sprintf("all of variable %s misses series without the label", v.Name))
			}
		}
		if value(v.Label) == "" {
			faults = append(faults, fmt.Sprintf("variable %s has no label", v.Name))
		}
		if (v.Name == "namespace" || v.Name == "job") && !value(v.Multi) {
			faults = append(faults, fmt.Sprintf("of variable %s only one value can be chosen", v.Name))
		}
	}
	for _, name := range needed {
		if !found[name] {
			faults = append(faults, "it lacks the variable "+name)
		}
	}
	if sources != 1 {
		faults = append(faults, fmt.Sprintf("it has %d variables of Prometheus data sources, and needs one", sources))
	}
	return faults
}

func ofPanel(p dashboard.Panel) (faults []string) {
	if value(p.Title) == "" || value(p.Description) == "" {
		faults = append(faults, "it has no title or no description")
	}
	if p.Datasource == nil || value(p.Datasource.Uid) != "$datasource" {
		faults = append(faults, "its data source is not $datasource")
	}
	if p.FieldConfig == nil || value(p.FieldConfig.Defaults.Unit) == "" && len(p.FieldConfig.Defaults.Mappings) == 0 {
		faults = append(faults, "it has no unit and no words for its values")
	}
	if p.Id == nil || p.GridPos == nil || p.GridPos.X+p.GridPos.W > 24 {
		faults = append(faults, "it has no number, or no place on the grid")
	}
	return faults
}

func ofTargets(d dashboard.Dashboard, p dashboard.Panel) (faults []string) {
	refs := make(map[string]bool)
	for _, q := range queries(p) {
		ref := value(q.RefId)
		if refs[ref] {
			faults = append(faults, "two targets are "+ref)
		}
		refs[ref] = true
		if q.Datasource == nil || value(q.Datasource.Uid) != "$datasource" {
			faults = append(faults, ref+" does not ask $datasource")
		}
		for _, fault := range ofExpression(d, q.Expr) {
			faults = append(faults, fmt.Sprintf("%s: %s: %s", ref, fault, q.Expr))
		}
	}
	if len(refs) == 0 {
		faults = append(faults, "it has no query")
	}
	return faults
}

// queries returns the targets of a panel that ask Prometheus.
func queries(p dashboard.Panel) (all []grafana.Dataquery) {
	for _, target := range p.Targets {
		switch q := target.(type) {
		case *grafana.Dataquery:
			all = append(all, *q)
		case grafana.Dataquery:
			all = append(all, q)
		}
	}
	return all
}

var variable = regexp.MustCompile(`\$\{?([a-zA-Z_]+)\}?`)

// substituted returns an expression with a value for each variable, and the variables that
// the dashboard does not have.
func substituted(d dashboard.Dashboard, expression string) (text string, unknown []string) {
	known := map[string]string{"__range": "1800s", "__rate_interval": "60s", "__interval": "15s"}
	for _, v := range d.Templating.List {
		known[v.Name] = "x"
	}
	known["histogram"], known["sums"] = "_bucket", "kasmina"
	return variable.ReplaceAllStringFunc(expression, func(name string) string {
		v, ok := known[variable.FindStringSubmatch(name)[1]]
		if !ok {
			unknown = append(unknown, name)
		}
		return v
	}), unknown
}

func ofExpression(d dashboard.Dashboard, expression string) (faults []string) {
	text, unknown := substituted(d, expression)
	for _, name := range unknown {
		faults = append(faults, "there is no variable "+name)
	}
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return append(faults, err.Error())
	}
	parser.Inspect(parsed, func(node parser.Node, above []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			faults = append(faults, ofSelector(n, above)...)
		case *parser.Call:
			if n.Func.Name == "rate" || n.Func.Name == "irate" || n.Func.Name == "increase" {
				if m, ok := n.Args[0].(*parser.MatrixSelector); ok && m.Range.Seconds() != 60 && m.Range != time.Hour {
					faults = append(faults, n.Func.Name+" is neither over $__rate_interval nor over 1h")
				}
			}
		}
		return nil
	})
	if !bounded(parsed) {
		faults = append(faults, "it may return any number of series: aggregate, or take the topk")
	}
	return faults
}

// ofSelector checks the matchers of the installation, and that counters are only used
// through their rate, or to find those that are new.
func ofSelector(s *parser.VectorSelector, above []parser.Node) (faults []string) {
	name, matched := s.Name, make(map[string]bool)
	for _, m := range s.LabelMatchers {
		matched[m.Name] = true
		if m.Name == labels.MetricName {
			name = m.Value
		}
	}
	for _, label := range []string{"namespace", "job", "prefix"} {
		if !matched[label] && name != "ALERTS" {
			faults = append(faults, name+" is not of one "+label)
		}
	}
	if !strings.HasSuffix(name, "_total") && !strings.HasSuffix(name, "_bucket") {
		return faults
	}
	for _, node := range above {
		if call, ok := node.(*parser.Call); ok && (call.Func.Name == "rate" || call.Func.Name == "increase" || call.Func.Name == "irate") {
			return faults
		}
		if set, ok := node.(*parser.BinaryExpr); ok && set.Op == parser.LUNLESS {
			return faults
		}
	}
	return append(faults, name+" is a counter, and this is not its rate")
}

// few are labels with so few values that a panel may show them all.
var few = map[string]bool{
	"le": true, "state": true, "code": true, "reason": true, "verdict": true, "kind": true, "group": true, "severity": true,
	"outcome": true, "result": true, "by": true, "of": true, "setting": true, "alertname": true, "alertstate": true,
}

// bounded returns whether an expression has a number of series that a panel can show,
// however large the network: it has aggregated all labels of layers, runs, seeds,
// partitions and processes, or takes the topk.
func bounded(e parser.Expr) bool {
	switch e := e.(type) {
	case *parser.AggregateExpr:
		if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
			return true
		}
		if e.Without {
			return bounded(e.Expr)
		}
		for _, label := range e.Grouping {
			if !few[label] {
				return bounded(e.Expr)
			}
		}
		return true
	case *parser.BinaryExpr:
		switch {
		case e.Op == parser.LOR:
			return bounded(e.LHS) && bounded(e.RHS)
		case e.Op == parser.LUNLESS:
			return bounded(e.LHS)
		case e.VectorMatching == nil || e.VectorMatching.Card == parser.CardOneToOne || e.Op == parser.LAND:
			return bounded(e.LHS) || bounded(e.RHS)
		case e.VectorMatching.Card == parser.CardOneToMany:
			return bounded(e.RHS)
		default:
			return bounded(e.LHS)
		}
	case *parser.Call:
		for _, a := range e.Args {
			if a.Type() == parser.ValueTypeVector || a.Type() == parser.ValueTypeMatrix {
				return bounded(a)
			}
		}
		return true
	case *parser.ParenExpr:
		return bounded(e.Expr)
	case *parser.UnaryExpr:
		return bounded(e.Expr)
	case *parser.StepInvariantExpr:
		return bounded(e.Expr)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return false // of an arithmetic expression, the other side decides
	}
	return false
}
