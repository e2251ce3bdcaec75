package configcheck

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func workerOf(t *testing.T, kind, file, settings string) Worker {
	t.Helper()
	w := Worker{Kind: kind, File: file}
	if err := yaml.Unmarshal([]byte(settings), &w.settings); err != nil {
		t.Fatal(err)
	}
	w.given = w.settings
	return w
}

func TestDisagreements(t *testing.T) {
	dir := t.TempDir()
	catalogue := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, copyOfA, b := catalogue("a", "x"), catalogue("copy", "x"), catalogue("b", "y")
	const common = "{prefix: p, brokers: [k1, k2], "
	for name, test := range map[string]struct {
		workers [][2]string // kind and settings
		want    []string    // in this order
	}{
		"nothing": {},
		"one of each": {[][2]string{
			{Ingest, "publish-timeout: 10s}"}, {Aggregate, "idle-horizon: 1m0s}"}, {Exporter, "lookback: 1h}"},
		}, nil},
		"what is their own": {[][2]string{
			{Ingest, "instance: a, raw: true, listen: a, group-instance: x}"}, {Ingest, "instance: b, raw: false, listen: b, log-level: debug}"},
		}, nil},
		"tensor stores": {[][2]string{
			{Ingest, "tensor-store: s3, s3-endpoint: a, inline-tensor-bytes: 1}"}, {Ingest, "tensor-store: directory, s3-endpoint: b, inline-tensor-bytes: 2}"},
		}, []string{
			"ingest 1.yaml: inline-tensor-bytes is 2, and that of ingest 0.yaml is 1",
			"ingest 1.yaml: s3-endpoint is b, and that of ingest 0.yaml is a",
			"ingest 1.yaml: tensor-store is directory, and that of ingest 0.yaml is s3",
		}},
		"windows and groups": {[][2]string{
			{Aggregate, "window-length: 10s, group: g, group-instance: i}"}, {Exporter, "series-silent-after: 5m0s}"}, {Aggregate, "window-length: 20s, group: h, group-instance: i}"},
		}, []string{
			"aggregate 2.yaml: group-instance is i, as that of aggregate 0.yaml; each member needs its own",
			"aggregate 2.yaml: group is h, and that of aggregate 0.yaml is g",
			"aggregate 2.yaml: window-length is 20s, and that of aggregate 0.yaml is 10s",
		}},
		"two ingests with one name": {[][2]string{{Ingest, "instance: a}"}, {Ingest, "instance: b}"}, {Ingest, "instance: a}"}}, []string{
			"ingest 2.yaml: instance is a, as that of ingest 0.yaml; each ingest needs its own, or frames that come through the slower of the two are late",
		}},
		"a window longer than the silence": {[][2]string{
			{Exporter, "series-silent-after: 5m0s}"}, {Aggregate, "window-length: 10m0s, out-of-orderness: 1s, allowed-lateness: 5s}"}, {Exporter, "series-silent-after: 10m6s}"},
		}, []string{
			"exporter 0.yaml: series-silent-after is 5m0s, and a window of aggregate 1.yaml closes 10m6s after the one before ended: layers disappear in between; give at least that",
			"exporter 2.yaml: series-silent-after is 10m6s, and that of exporter 0.yaml is 5m0s",
		}},
		"no static membership": {[][2]string{{Aggregate, `group-instance: ""}`}, {Aggregate, `group-instance: ""}`}}, nil},
		"buckets": {[][2]string{{Exporter, "series-buckets: [1, 2]}"}, {Exporter, "series-buckets: [1, 3]}"}}, []string{
			"exporter 1.yaml: series-buckets is [1 3], and that of exporter 0.yaml is [1 2]",
		}},
		"a timeout beyond the horizon": {[][2]string{{Aggregate, "idle-horizon: 5s}"}, {Ingest, "publish-timeout: 10s}"}}, []string{
			"ingest 1.yaml: publish-timeout is 10s, as long as the idle-horizon of aggregate 0.yaml (5s) or longer: frames of a producer that waits would be late",
		}},
		"catalogues": {[][2]string{{Aggregate, "catalogue: " + a + "}"}, {Aggregate, "catalogue: " + copyOfA + "}"}, {Aggregate, "catalogue: " + b + "}"}, {Aggregate, `catalogue: ""}`}}, []string{
			"aggregate 2.yaml: its catalogue \"" + b + "\" has another content than that of aggregate 0.yaml, \"" + a + "\"",
			"aggregate 3.yaml: its catalogue \"\" has another content than that of aggregate 0.yaml, \"" + a + "\"",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var workers []Worker
			for i, w := range test.workers {
				workers = append(workers, workerOf(t, w[0], string(rune('0'+i))+".yaml", common+w[1]))
			}
			if got := Disagreements(workers); !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Two ingests that are not given a name are called by their hosts, which may not be
// this one.
func TestIngestsWithoutANameMayBeOnTwoHosts(t *testing.T) {
	a, b := workerOf(t, Ingest, "a", "{prefix: p, brokers: [k], instance: here}"), workerOf(t, Ingest, "b", "{prefix: p, brokers: [k], instance: here}")
	b.given = nil
	if got := Disagreements([]Worker{a, b}); len(got) != 0 {
		t.Errorf("one is given: %q", got)
	}
	a.given = nil
	t.Setenv("OONA_INSTANCE", "here")
	if got := Disagreements([]Worker{a, b}); len(got) != 1 {
		t.Errorf("a variable is for both: %q", got)
	}
}

func TestDisagreementsOnTheBus(t *testing.T) {
	workers := []Worker{
		workerOf(t, Ingest, NoFile, "{prefix: p, brokers: [k1, k2], publish-timeout: 1s}"),
		workerOf(t, Aggregate, "a", "{prefix: p, brokers: [k2, k3], idle-horizon: 2s}"),
		workerOf(t, Exporter, "e", "{prefix: q, brokers: [k3]}"),
	}
	want := []string{
		"exporter e: prefix is q, and that of ingest without a file is p",
		"exporter e: brokers are [k3], and ingest without a file has none of them",
	}
	if got := Disagreements(workers); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAskWithoutABinary(t *testing.T) {
	_, err := Ask(t.Context(), t.TempDir(), Ingest, "i.yaml")
	if err == nil || !strings.Contains(err.Error(), "ingest i.yaml: there is no binary ") || !strings.Contains(err.Error(), "(--bin)") {
		t.Errorf("the error is %v", err)
	}
}
