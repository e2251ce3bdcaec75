package proof

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"sigs.k8s.io/yaml"
)

const alertsFolder = repository + "/deploy/prometheus/"

// alertsFiles are the files of alerts, in the chart and in alertsFolder.
var alertsFiles = []string{"oona-alerts.yml", "network-alerts.yml"}

// rules are the groups of a file of rules, and of a PrometheusRule.
type rules struct {
	Groups []monitoring.RuleGroup `json:"groups"`
}

func readRules(t *testing.T, file string) rules {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all rules
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func renderedRules(t *testing.T, name string) rules {
	t.Helper()
	return rulesOf(t, readValues(t, name))
}

func rulesOf(t *testing.T, values map[string]any) rules {
	t.Helper()
	objects, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.Kind == "PrometheusRule" {
			return rules{decode[monitoring.PrometheusRule](t, o).Spec.Groups}
		}
	}
	t.Fatal("there is no PrometheusRule")
	return rules{}
}

// The chart has the alerts of deploy/prometheus.
func TestAlertsAreTheSame(t *testing.T) {
	for _, name := range alertsFiles {
		want, err := os.ReadFile(alertsFolder + name)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(loadChart(t).Files, func(f *chart.File) bool { return f.Name == "files/"+name })
		if i < 0 || !bytes.Equal(loadChart(t).Files[i].Data, want) {
			t.Errorf("files/%s of the chart is not a symbolic link to %s%s", name, alertsFolder, name)
		}
	}
}

// A copy of the chart in which the link leads nowhere says so, and has no rule without alerts.
func TestAlertsAreMissed(t *testing.T) {
	for _, name := range alertsFiles {
		c := loadChart(t)
		c.Files = slices.DeleteFunc(c.Files, func(f *chart.File) bool { return f.Name == "files/"+name })
		if _, err := render(c, readValues(t, "production")); err == nil || !strings.Contains(err.Error(), "files/"+name) {
			t.Errorf("a chart without %s renders: error %v", name, err)
		}
	}
}

var (
	series   = regexp.MustCompile(`\b((oona|kasmina)_[a-z0-9_]+|up)\b`)
	matchers = `{namespace="ns",job=~"r-oona-(ingest|aggregate|exporter)"`
)

// Every selector of every alert names the release. Otherwise a healthy release would hide
// another one that is dead.
func TestAlerts(t *testing.T) {
	source := map[string]monitoring.Rule{}
	for _, name := range alertsFiles {
		for _, g := range readRules(t, alertsFolder+name).Groups {
			for _, r := range g.Rules {
				source[r.Alert] = r
			}
		}
	}
	if _, ok := source["OonaWindowHeldOpen"]; !ok {
		t.Fatal("OonaWindowHeldOpen is no alert any more; disable another one in testdata/values/production.yaml")
	}
	delete(source, "OonaWindowHeldOpen")
	for _, g := range renderedRules(t, "production").Groups {
		if !strings.HasPrefix(g.Name, "r-oona.") {
			t.Errorf("the group %s does not name the release", g.Name)
		}
		for _, r := range g.Rules {
			expression := r.Expr.StrVal
			for _, at := range series.FindAllStringIndex(expression, -1) {
				if !strings.HasPrefix(expression[at[1]:], matchers) {
					t.Errorf("%s: %s has no matchers of the release in %s", r.Alert, expression[at[0]:at[1]], expression)
				}
			}
			if r.Labels["team"] != "a" || r.Labels["severity"] != source[r.Alert].Labels["severity"] {
				t.Errorf("%s has labels %v", r.Alert, r.Labels)
			}
			plain := strings.ReplaceAll(strings.ReplaceAll(expression, matchers+",", "{"), matchers+"}", "")
			if want := strings.ReplaceAll(source[r.Alert].Expr.StrVal, "{}", ""); plain != want {
				t.Errorf("%s without matchers is\n%s\nwant\n%s", r.Alert, plain, want)
			}
			if fmt.Sprint(r.Annotations) != fmt.Sprint(source[r.Alert].Annotations) {
				t.Errorf("%s has annotations %v", r.Alert, r.Annotations)
			}
			delete(source, r.Alert)
		}
	}
	for name := range source {
		t.Errorf("%s is not rendered", name)
	}
}

// A worker that is not installed has no alerts: one of them says that there is none, and
// would fire for as long as the release exists.
func TestAlertsOfInstalledWorkers(t *testing.T) {
	all := []string{"ingest", "aggregate", "exporter"}
	for _, left := range all {
		values := readValues(t, "production")
		values[left].(map[string]any)["enabled"] = false
		rendered := rulesOf(t, values)
		for _, worker := range all {
			asked := slices.ContainsFunc(rendered.Groups, func(g monitoring.RuleGroup) bool {
				return slices.ContainsFunc(g.Rules, func(r monitoring.Rule) bool {
					return strings.Contains(r.Expr.StrVal, "absent(oona_"+worker+"_")
				})
			})
			if asked != (worker != left) {
				t.Errorf("without %s: an alert for the absence of %s is %v", left, worker, asked)
			}
		}
		network := slices.ContainsFunc(rendered.Groups, func(g monitoring.RuleGroup) bool { return g.Name == "r-oona.oona-network" })
		if network != (left != "exporter") {
			t.Errorf("without %s: that there are alerts on the network is %v", left, network)
		}
	}
}

// A release all of whose aggregators are dead is noticed, though another one in the same
// Prometheus is healthy.
func TestAlertsSeeOneReleaseOnly(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("OONA_REQUIRE_PROMTOOL") != "" {
			t.Fatal(err)
		}
		t.Skip("promtool is not installed")
	}
	dir := t.TempDir()
	text, err := yaml.Marshal(renderedRules(t, "production"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "rules.yml"), text)
	write(t, filepath.Join(dir, "test.yml"), []byte(deadBesideHealthy))
	check := exec.Command(promtool, "check", "rules", filepath.Join(dir, "rules.yml"))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command(promtool, "test", "rules", filepath.Join(dir, "test.yml")).CombinedOutput()
	// promtool compares whole alerts. That this one fires is all that is asked here.
	if err == nil || !strings.Contains(string(out), `alertname="OonaPartitionUnowned"`) {
		t.Errorf("OonaPartitionUnowned of the dead release does not fire:\n%s", out)
	}
}

// deadBesideHealthy is a test that expects no alert.
const deadBesideHealthy = `
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'oona_aggregate_lag_records{namespace="other",job="r-oona-aggregate",instance="a",prefix="p",partition="0"}', values: 0x20}
      - {series: 'oona_aggregate_topic_partitions{namespace="other",job="r-oona-aggregate",instance="a",prefix="p"}', values: 1x20}
    alert_rule_test:
      - {eval_time: 15m, alertname: OonaPartitionUnowned, exp_alerts: []}
`

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
