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
		"what may differ": {[][2]string{
			{Ingest, "instance: a, raw: true, listen: a, group-instance: x}"}, {Ingest, "instance: b, raw: false, listen: b, log-level: debug}"},
		}, nil},
		"files of certificates and access": {[][2]string{
			{Ingest, `listen-tls-cert-file: a.pem, listen-access-file: a.yaml, admin-access-file: ""}`},
			{Ingest, `listen-tls-cert-file: b.pem, listen-access-file: "", admin-access-file: b.yaml, admin-pprof: true}`},
		}, []string{
			"ingest 1.yaml: admin-access-file is given, but ingest 0.yaml has none; give it to both or to neither",
			"ingest 0.yaml: listen-access-file is given, but ingest 1.yaml has none; give it to both or to neither",
		}},
		"tensor stores": {[][2]string{
			{Ingest, "tensor-store: s3, s3-endpoint: a, inline-tensor-bytes: 1}"}, {Ingest, "tensor-store: directory, s3-endpoint: b, inline-tensor-bytes: 2}"},
		}, []string{
			"ingest 1.yaml: inline-tensor-bytes is 2, but ingest 0.yaml has 1",
			"ingest 1.yaml: s3-endpoint is b, but ingest 0.yaml has a",
			"ingest 1.yaml: tensor-store is directory, but ingest 0.yaml has s3",
		}},
		"windows and groups": {[][2]string{
			{Aggregate, "window-length: 10s, group: g, group-instance: i}"}, {Exporter, "series-silent-after: 5m0s}"}, {Aggregate, "window-length: 20s, group: h, group-instance: i}"},
		}, []string{
			"aggregate 2.yaml: group-instance is i, which aggregate 0.yaml has, too; each member of a group needs its own",
			"aggregate 2.yaml: group is h, but aggregate 0.yaml has g",
			"aggregate 2.yaml: window-length is 20s, but aggregate 0.yaml has 10s",
		}},
		"two ingests with one name": {[][2]string{{Ingest, "instance: a}"}, {Ingest, "instance: b}"}, {Ingest, "instance: a}"}}, []string{
			"ingest 2.yaml: instance is a, which ingest 0.yaml has, too; each ingest needs its own, or frames that go through the slower one are late",
		}},
		"a window longer than the silence": {[][2]string{
			{Exporter, "series-silent-after: 5m0s}"}, {Aggregate, "window-length: 10m0s, out-of-orderness: 1s, allowed-lateness: 5s}"}, {Exporter, "series-silent-after: 10m6s}"},
		}, []string{
			"exporter 0.yaml: series-silent-after is 5m0s, but by aggregate 1.yaml a window closes up to 10m6s after the end of the previous one, so series of layers disappear in between; give at least 10m6s",
			"exporter 2.yaml: series-silent-after is 10m6s, but exporter 0.yaml has 5m0s",
		}},
		"no static membership": {[][2]string{{Aggregate, `group-instance: ""}`}, {Aggregate, `group-instance: ""}`}}, nil},
		"buckets": {[][2]string{{Exporter, "series-buckets: [1, 2]}"}, {Exporter, "series-buckets: [1, 3]}"}}, []string{
			"exporter 1.yaml: series-buckets is [1 3], but exporter 0.yaml has [1 2]",
		}},
		"a timeout beyond the horizon": {[][2]string{{Aggregate, "idle-horizon: 5s}"}, {Ingest, "publish-timeout: 10s}"}}, []string{
			"ingest 1.yaml: publish-timeout is 10s; give less than 5s, the idle-horizon of aggregate 0.yaml, or frames that wait so long are late",
		}},
		"catalogues": {[][2]string{{Aggregate, "catalogue: " + a + "}"}, {Aggregate, "catalogue: " + copyOfA + "}"}, {Aggregate, "catalogue: " + b + "}"}, {Aggregate, `catalogue: ""}`}}, []string{
			"aggregate 2.yaml: catalogue is \"" + b + "\", and its content differs from \"" + a + "\", which aggregate 0.yaml has",
			"aggregate 3.yaml: catalogue is \"\", and its content differs from \"" + a + "\", which aggregate 0.yaml has",
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

// By default, an ingest has the name of its host, which may not be this one.
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
		"exporter e: prefix is q, but ingest without a file has p",
		"exporter e: brokers are [k3], but ingest without a file has [k1 k2]; they must share at least one",
	}
	if got := Disagreements(workers); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAskWithoutABinary(t *testing.T) {
	_, err := Ask(t.Context(), t.TempDir(), Ingest, "i.yaml")
	if err == nil || !strings.Contains(err.Error(), "ingest i.yaml: the binary ") || !strings.Contains(err.Error(), "(--bin)") {
		t.Errorf("the error is %v", err)
	}
}
