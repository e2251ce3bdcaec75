package proof

import (
	"maps"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/internal/size"
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

// A size may have all the forms that the flag takes, and reaches the programs with the same value. What
// the flag does not take is refused.
func TestSizes(t *testing.T) {
	for _, given := range []any{
		float64(4_000_000), int64(4_000_000), "4000000", "4_000_000", "4MiB", "4MB", "4096KiB", "4194304B", "1.5MiB", "1MiB512KiB", "1MB512KB",
		"1Mi", "1M", "1 MiB", "1mib", "1e6", "1e6B", "1.5", "1KiB512KB", "-1MiB", "MiB", "", true,
	} {
		values := readValues(t, "minimal")
		values["kafka"].(map[string]any)["maxMessageBytes"] = given
		want, accepted := int64(4_000_000), given != true
		if text, is := given.(string); is {
			var err error
			want, err = size.Parse(text)
			accepted = err == nil && want > 0
		}
		if _, err := render(loadChart(t), values); (err == nil) != accepted {
			t.Errorf("%v: accepted by the flag: %t, by the chart: %v", given, accepted, err)
			continue
		}
		if !accepted {
			continue
		}
		got := flags(t, values, "--max-message-bytes")
		if len(got) != 2 || got["ingest"] != got["topics"] {
			t.Errorf("%v: --max-message-bytes is %v", given, got)
		}
		if bytes, err := size.Parse(got["ingest"]); err != nil || bytes != want {
			t.Errorf("%v: --max-message-bytes=%s is %d (%v), want %d", given, got["ingest"], bytes, err, want)
		}
	}
}
