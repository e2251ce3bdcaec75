package proof

import (
	"maps"
	"strings"
	"testing"
)

// flags returns the values of a flag in the pods, by the component.
func flags(t *testing.T, values map[string]any, flag string) map[string]string {
	t.Helper()
	objects, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, w := range workloads(t, objects) {
		for _, arg := range w.Pod.Spec.Containers[0].Args {
			if value, ok := strings.CutPrefix(arg, flag+"="); ok {
				all[w.Pod.Labels[component]] = value
			}
		}
	}
	return all
}

// Two installations with different prefixes have different consumer groups, without a
// setting. In one group, pods of the same name would take over each other's partitions.
func TestGroupsDependOnThePrefix(t *testing.T) {
	for _, c := range []struct{ prefix, given, aggregate, ingest, exporter string }{
		{"kasmina", "", "oona-aggregate", "oona-ingest", "oona-remote-write"},
		{"team-a", "", "team-a-oona-aggregate", "team-a-oona-ingest", "team-a-oona-remote-write"},
		{"team-a", "mine", "mine", "mine", "mine"},
	} {
		values := readValues(t, "minimal")
		values["kafka"].(map[string]any)["prefix"] = c.prefix
		values["aggregate"] = map[string]any{"group": c.given}
		values["ingest"] = map[string]any{"raw": true, "rawGroup": c.given}
		values["exporter"] = map[string]any{"remoteWrite": map[string]any{"url": "https://prometheus/api/v1/write", "group": c.given}}
		if got := flags(t, values, "--group"); !maps.Equal(got, map[string]string{"aggregate": c.aggregate, "topics": c.aggregate}) {
			t.Errorf("prefix %s, group %q: --group is %v", c.prefix, c.given, got)
		}
		if got := flags(t, values, "--raw-group"); !maps.Equal(got, map[string]string{"ingest": c.ingest}) {
			t.Errorf("prefix %s, group %q: --raw-group is %v", c.prefix, c.given, got)
		}
		if got := flags(t, values, "--remote-write-group"); !maps.Equal(got, map[string]string{"exporter": c.exporter}) {
			t.Errorf("prefix %s, group %q: --remote-write-group is %v", c.prefix, c.given, got)
		}
	}
}

// A large number reaches the programs as it was written: Helm reads it as a float.
func TestLargeNumbers(t *testing.T) {
	got := flags(t, readValues(t, "production"), "--max-accumulators")
	if !maps.Equal(got, map[string]string{"aggregate": "1048576", "topics": "1048576"}) {
		t.Errorf("--max-accumulators is %v", got)
	}
}
