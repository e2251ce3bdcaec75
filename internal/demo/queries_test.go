package demo

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	documentedQuery = regexp.MustCompile("(?s)```promql\n(.*?)```")
	mayBeEmpty      = []string{"kasmina_layer_verdict)", "kasmina_layer_verdict_reason)"} // parts of queries that have no results if all layers are healthy
)

// checkDocumentedQueries runs each query of docs/metrics.md for the given time, and checks that it has
// results and that each result names its run. Queries of quantiles with native histograms run on one
// server, and those with classic histograms on one with default settings. Package lint checks the
// values.
func checkDocumentedQueries(t *testing.T, ctx context.Context, native, defaults *server, at time.Time) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	forms := [2]int{}
	queries := documentedQuery.FindAllSubmatch(page, -1)
	for _, found := range queries {
		query := string(found[1])
		servers := []*server{native, defaults}
		switch {
		case strings.Contains(query, "_bucket"):
			servers = servers[1:]
			forms[1]++
		case strings.Contains(query, "histogram_"):
			servers = servers[:1]
			forms[0]++
		}
		for _, p := range servers {
			results, err := p.query(ctx, at, query)
			empty := slices.ContainsFunc(mayBeEmpty, func(part string) bool { return strings.Contains(query, part) })
			if err != nil || len(results) == 0 && !empty {
				t.Errorf("%d results (%v) of\n%s", len(results), err, query)
			}
			for _, r := range results {
				if r.Metric["run"] == "" {
					t.Errorf("the labels %v do not name the run, in\n%s", r.Metric, query)
				}
			}
		}
	}
	if len(queries) < 10 || forms[0] == 0 || forms[0] != forms[1] {
		t.Errorf("docs/metrics.md has %d queries, and quantiles of %d native and %d classic histograms", len(queries), forms[0], forms[1])
	}
}
