package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// Whatever an alert is about is on a dashboard: at least one of its series is in a query of
// a panel.
func TestAlertsHavePanels(t *testing.T) {
	shown := make(map[string]bool)
	for _, text := range files(t) {
		var d dashboard.Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range panels(d) {
			for _, q := range queries(p) {
				query, _ := substituted(d, q.Expr)
				for _, name := range names(t, query) {
					shown[name] = true
				}
			}
		}
	}
	alerts := 0
	for name, expression := range alertsOf(t) {
		alerts++
		found := false
		for _, series := range names(t, expression) {
			found = found || shown[series]
		}
		if !found {
			t.Errorf("no panel shows any series of the alert %s: %s", name, expression)
		}
	}
	if alerts < 40 {
		t.Errorf("only %d alerts were read", alerts)
	}
}

// alertsOf returns the expressions of all alerts, by name.
func alertsOf(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../prometheus/*-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Groups []struct {
				Rules []struct{ Alert, Expr string }
			}
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		for _, g := range file.Groups {
			for _, r := range g.Rules {
				all[r.Alert] = r.Expr
			}
		}
	}
	return all
}

// names returns the names of the series in an expression.
func names(t *testing.T, expression string) (all []string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatalf("%v: %s", err, expression)
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			for _, m := range s.LabelMatchers {
				if m.Name == labels.MetricName {
					all = append(all, m.Value)
				}
			}
		}
		return nil
	})
	return all
}
