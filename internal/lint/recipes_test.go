package lint

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	alertRecipe = regexp.MustCompile("(?s)```yaml\n(groups:\n.*?)```")
	queryRecipe = regexp.MustCompile("(?s)```promql\n(.*?)```")
	queryTitle  = regexp.MustCompile(`\*\*(.+?)\*\*`)
	notAName    = regexp.MustCompile(`[^a-z0-9]+`)
	queryTested = regexp.MustCompile(`(?m)^      - expr: (\w+)$`)
)

// queryRecipes returns the queries of a page by the bold text before each, as a name.
func queryRecipes(page string) map[string]string {
	all := map[string]string{}
	for _, at := range queryRecipe.FindAllStringSubmatchIndex(page, -1) {
		titles := queryTitle.FindAllStringSubmatch(page[:at[0]], -1)
		name := strings.Trim(notAName.ReplaceAllString(strings.ToLower(titles[len(titles)-1][1]), "_"), "_")
		for all[name] != "" {
			name += "_again"
		}
		all[name] = strings.TrimSpace(page[at[2]:at[3]])
	}
	return all
}

// TestRecipes runs the alerts and the queries of docs/metrics.md on series whose results
// are known (testdata/recipes-test.yml). Package demo runs the queries on a real
// Prometheus, native histograms too.
func TestRecipes(t *testing.T) {
	promtool := requirePromtool(t)
	metrics := page(t, "../../docs/metrics.md")
	alert, queries := alertRecipe.FindStringSubmatch(metrics), queryRecipes(metrics)
	if alert == nil || len(queries) < 10 {
		t.Fatalf("docs/metrics.md has the alert %q and %d queries in blocks of their own", alert, len(queries))
	}
	rules := alert[1] + `
  - name: recipes
    rules:
      - alert: NeverFires
        expr: rate(kasmina_layer_frames_total[1m]) == 0
        for: 5m
`
	tests := page(t, "testdata/recipes-test.yml")
	tested := submatches(queryTested, tests)
	for name, query := range queries {
		rules += fmt.Sprintf("      - record: %s\n        expr: |-\n          %s\n", name, strings.ReplaceAll(query, "\n", "\n          "))
		native := strings.Contains(query, "histogram_quantile") && !strings.Contains(query, "_bucket")
		if !slices.Contains(tested, name) && !native {
			t.Errorf("testdata/recipes-test.yml has no test of %s", name)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"recipes.yml": rules, "recipes-test.yml": tests} {
		write(t, filepath.Join(dir, name), text)
	}
	check := exec.CommandContext(t.Context(), promtool, "test", "rules", "recipes-test.yml")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s\n%s", err, out, rules)
	}
}
