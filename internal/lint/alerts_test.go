package lint

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const alertFolder = "../../deploy/prometheus/"

// alertFiles are the files of alerts. Each has a file of tests beside it.
var alertFiles = []string{"oona-alerts", "network-alerts"}

var (
	alertRule    = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
	alertFiring  = regexp.MustCompile(`alertname: (\w+)\n +exp_alerts:`)
	alertHeading = regexp.MustCompile(`\bOona[A-Z]\w+`)
	oonaSeries   = regexp.MustCompile(`\boona_[a-z]+_\w+`)
	layerSeries  = regexp.MustCompile(`\bkasmina_(?:layer|run)_\w+`)
)

func page(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// submatches returns the matches of a pattern's last group, sorted and each once.
func submatches(pattern *regexp.Regexp, text string) (all []string) {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		all = append(all, m[len(m)-1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Each alert has an explanation and a test in which it fires, there are no other
// explanations, and the series of the alerts are documented.
func TestAlertsAreExplainedAndTested(t *testing.T) {
	rules, tests := "", ""
	for _, name := range alertFiles {
		rules += page(t, alertFolder+name+".yml")
		tests += page(t, alertFolder+name+"-test.yml")
	}
	alerts := submatches(alertRule, rules)
	if len(alerts) < 15 {
		t.Fatalf("there are only the alerts %v", alerts)
	}
	if fired := submatches(alertFiring, tests); !slices.Equal(fired, alerts) {
		t.Errorf("the alerts are %v\nand those that are tested to fire %v", alerts, fired)
	}
	var headings []string
	for line := range strings.Lines(page(t, "../../docs/operations.md")) {
		if strings.HasPrefix(line, "### ") {
			headings = append(headings, alertHeading.FindAllString(line, -1)...)
		}
	}
	slices.Sort(headings)
	if !slices.Equal(headings, alerts) {
		t.Errorf("the alerts are %v\nand those that docs/operations.md explains %v", alerts, headings)
	}
	metrics := page(t, "../../docs/metrics.md")
	for _, series := range oonaSeries.FindAllString(rules, -1) {
		_, short, _ := strings.Cut(strings.TrimPrefix(series, "oona_"), "_")
		if !strings.Contains(metrics, "`"+series) && !strings.Contains(metrics, "`_"+short) {
			t.Errorf("docs/metrics.md says nothing of %s", series)
		}
	}
	for _, series := range layerSeries.FindAllString(rules, -1) {
		general := strings.NewReplacer("_health_", "_GROUP_", "_performance_", "_GROUP_").Replace(series)
		if !strings.Contains(metrics, "`"+general) {
			t.Errorf("docs/metrics.md says nothing of %s", general)
		}
	}
}

func requirePromtool(t *testing.T) string {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const missing = "promtool is not on the PATH (Debian: apt-get install prometheus)"
		if os.Getenv("OONA_REQUIRE_PROMTOOL") == "1" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED: " + missing)
	}
	return promtool
}

func TestAlertRules(t *testing.T) {
	promtool := requirePromtool(t)
	for _, name := range alertFiles {
		for _, args := range [][]string{{"check", "rules", name + ".yml"}, {"test", "rules", name + "-test.yml"}} {
			runPromtool(t, promtool, args)
		}
	}
}

func runPromtool(t *testing.T, promtool string, args []string) {
	t.Helper()
	check := exec.CommandContext(t.Context(), promtool, args...)
	check.Dir = alertFolder
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
