package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each rule finds what it is for: a dashboard with one fault has exactly that one.
func TestRulesFind(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(checkedIn, "network.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, fault string }{
		"a data source":        {`"uid": "$datasource"`, `"uid": "prometheus"`, "$datasource"},
		"no description":       {`"description": "Layers whose verdict is critical."`, `"description": ""`, "no description"},
		"editable":             {`"editable": false`, `"editable": true`, "edited"},
		"a foreign uid":        {`"uid": "oona-network"`, `"uid": "network"`, "uid"},
		"links lose variables": {`"includeVars": true`, `"includeVars": false`, "keeps variables"},
		"a value is null":      {`"refresh": "30s"`, `"refresh": null`, "null"},
		"no namespace":         {`kasmina_layer_seeds_active{namespace=~\"$namespace\", `, `kasmina_layer_seeds_active{`, "not of one namespace"},
		"no job":               {`kasmina_layer_seeds_active{namespace=~\"$namespace\", job=~\"$job\", `, `kasmina_layer_seeds_active{namespace=~\"$namespace\", `, "not of one job"},
		"no prefix":            {`kasmina_layer_seeds_active{namespace=~\"$namespace\", job=~\"$job\", prefix=~\"$prefix\", `, `kasmina_layer_seeds_active{namespace=~\"$namespace\", job=~\"$job\", `, "not of one prefix"},
		"no PromQL":            {`"count(max`, `"count((max`, "unclosed"},
		"a variable":           {`run=\"$run\", layer=~\"$layer\"}) == bool 2`, `run=\"$network\", layer=~\"$layer\"}) == bool 2`, "no variable $network"},
		"a fixed range":        {`[$__rate_interval]`, `[5m]`, "neither over $__rate_interval nor over 1h"},
		"a counter":            {`sum(max without (instance, pod) (kasmina_layer_seeds_active{`, `sum(max without (instance, pod) (kasmina_layer_frames_total{`, "is a counter"},
		"thousands of series":  {`"sum(max without (instance, pod) (kasmina_layer_seeds_active{`, `"(max without (instance, pod) (kasmina_layer_seeds_active{`, "any number of series"},
		"no unit":              {`"unit": "percentunit"`, `"unit": ""`, "no unit"},
		"read once":            {`"refresh": 2`, `"refresh": 1`, "read again"},
		"no label":             {`"label": "Run"`, `"label": ""`, "no label"},
		"one job only":         {`"multi": true`, `"multi": false`, "only one value"},
		"no page":              {`"name": "page"`, `"name": "site"`, "lacks the variable page"},
		"a second source":      {`"query": "jaeger"`, `"query": "prometheus"`, "2 variables"},
		"too large":            {`"title": "Oona / Network"`, `"title": "` + strings.Repeat("Oona ", mostBytes/5) + `"`, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.ReplaceAll(text, []byte(c.from), []byte(c.to))
			if bytes.Equal(changed, text) {
				t.Fatalf("network.json has no %s", c.from)
			}
			found := faults(t, changed)
			if len(found) == 0 {
				t.Fatal("no rule finds it")
			}
			for _, fault := range found {
				if strings.Contains(fault, c.fault) {
					return
				}
			}
			t.Errorf("the rules find %q, and not %s", found[:min(len(found), 3)], c.fault)
		})
	}
}
