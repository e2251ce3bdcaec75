package lint

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	alertRecipe = regexp.MustCompile("(?s)```yaml\n(groups:\n.*?)```")
	queryRecipe = regexp.MustCompile("(?s)```promql\n(.*?)```")
)

// TestRecipes runs the alert and the query of docs/metrics.md on series whose results
// are known (testdata/recipes-test.yml).
func TestRecipes(t *testing.T) {
	promtool := requirePromtool(t)
	metrics := page(t, "../../docs/metrics.md")
	alert, query := alertRecipe.FindStringSubmatch(metrics), queryRecipe.FindStringSubmatch(metrics)
	if alert == nil || query == nil {
		t.Fatal("docs/metrics.md has no alert, or no query, in a block of its own")
	}
	rules := alert[1] + `
  - name: recipes
    rules:
      - alert: NeverFires
        expr: rate(kasmina_layer_frames_total[1m]) == 0
        for: 5m
      - record: worst_seeds
        expr: |
          ` + strings.ReplaceAll(strings.TrimSpace(query[1]), "\n", "\n          ") + "\n"
	dir := t.TempDir()
	for name, text := range map[string]string{"recipes.yml": rules, "recipes-test.yml": page(t, "testdata/recipes-test.yml")} {
		write(t, filepath.Join(dir, name), text)
	}
	check := exec.CommandContext(t.Context(), promtool, "test", "rules", "recipes-test.yml")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s\n%s", err, out, rules)
	}
}
