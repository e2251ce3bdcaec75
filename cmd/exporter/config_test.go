package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/internal/worker/workertest"
	"github.com/morphogenetic/oona/pipeline/export"
)

func parse(t *testing.T, args ...string) (*config, error) {
	t.Helper()
	cfg := defaults()
	_, err := worker.Parse(cfg, "exporter", "", args, new(bytes.Buffer))
	return cfg, err
}

func TestConformance(t *testing.T) {
	workertest.Run(t, func(args ...string) (string, error) {
		var out bytes.Buffer
		_, err := worker.Parse(defaults(), "exporter", "", args, &out)
		return out.String(), err
	})
}

func TestDefaultsAreTheStages(t *testing.T) {
	cfg, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.stage()
	if err != nil {
		t.Fatal(err)
	}
	if want := export.DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("stage %+v, want %+v", got, want)
	}
}

func TestFlagsReachTheStage(t *testing.T) {
	cfg, err := parse(t, "--prefix=lab", "--series-max-runs=1", "--series-max-layers=2", "--series-max-total-layers=7", "--series-max-metrics=3",
		"--series-expected=blend,all", "--series-worst-seeds=4", "--series-silent-after=5s", "--run-kept=6s", "--series-buckets=-1,0,6")
	if err != nil {
		t.Fatal(err)
	}
	topics, err := oona.NewTopics("lab")
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.stage()
	if err != nil {
		t.Fatal(err)
	}
	want := export.Config{Topics: topics, MaxRuns: 1, MaxLayers: 2, MaxTotalLayers: 7, MaxMetrics: 3, Expected: []string{"blend", "all"}, WorstSeeds: 4, SilentAfter: 5 * time.Second, RunKept: 6 * time.Second, Buckets: []float64{-1, 0, 6}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("stage %+v, want %+v", got, want)
	}
}

// Each form of the buckets is also what --check prints of them.
func TestBuckets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "exporter.yaml")
	for _, test := range []struct {
		value string // on the command line, and in a file
		want  []float64
		shown string
	}{
		{"default", export.DefaultBuckets(), "default"},
		{"fine", export.FineBuckets(), "fine"},
		{"[-1, 0, 0.5]", []float64{-1, 0, 0.5}, "-1,0,0.5"},
		{`"-1, 0, 0.5"`, []float64{-1, 0, 0.5}, "-1,0,0.5"},
		{`""`, nil, `""`},
	} {
		if err := os.WriteFile(file, []byte("series-buckets: "+test.value), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, arg := range []string{"--config=" + file, "--series-buckets=" + strings.Trim(test.value, `[]"`)} {
			cfg, err := parse(t, arg)
			if err != nil {
				t.Errorf("%s: %v", arg, err)
				continue
			}
			var effective bytes.Buffer
			_, err = worker.Parse(defaults(), "exporter", "", []string{arg, "--check"}, &effective)
			if got := []float64(cfg.Series.Buckets); !slices.Equal(got, test.want) || err != nil {
				t.Errorf("%s: %s gives %v (%v), want %v", test.value, arg, got, err, test.want)
			}
			if !strings.Contains(effective.String(), "series-buckets: "+test.shown+"\n") {
				t.Errorf("%s: --check prints\n%s\nwant series-buckets: %s", test.value, effective.String(), test.shown)
			}
		}
	}
	if n := len(export.FineBuckets()); n != 42 {
		t.Errorf("%d fine buckets; docs/metrics.md says 42", n)
	}
}

// Each error names the flag to change.
func TestBadConfiguration(t *testing.T) {
	for arg, field := range map[string]string{
		"--lookback=1m":         "--lookback",
		"--lookback=-1h":        "--lookback",
		"--series-buckets=2, 1": "--series-buckets[1]",
		"--series-max-runs=0":   "--series-max-runs",
		"--run-kept=1m":         "--run-kept",
	} {
		_, err := parse(t, arg)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: error is %v, want one of %s", arg, err, field)
		}
	}
	if _, err := parse(t, "--catalogue=no-such-file.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a catalogue that does not exist: error is %v", err)
	}
}

func TestLookback(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	cfg, err := parse(t, "--lookback=10m")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.from(now), now.Add(-10*time.Minute); !got.Equal(want) {
		t.Errorf("from %v, want %v", got, want)
	}
	if cfg, err = parse(t, "--lookback=0"); err != nil {
		t.Fatal(err)
	}
	cfg.Lookback = 2562047 * time.Hour
	if got := cfg.from(now); !got.IsZero() {
		t.Errorf("a time before 1970 is %s, want the beginning", got)
	}
	cfg.Lookback = 0
	if got := cfg.from(now); !got.IsZero() {
		t.Errorf("from %v, want the beginning", got)
	}
}

func TestCatalogueFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "metrics.yaml")
	write := func(text string) (*config, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return parse(t, "--catalogue="+file)
	}
	cfg, err := write("metrics: {energy: {group: health, help: Energy of one batch.}}")
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalogue.Open(cfg.Catalogue)
	if err != nil {
		t.Fatal(err)
	}
	if got := known.Metric("energy").Help; got != "Energy of one batch." {
		t.Errorf("help %q", got)
	}
	_, err = write("metrics: {energy: {group: wealth}}")
	if err == nil || !strings.Contains(err.Error(), "metrics.yaml") || !strings.Contains(err.Error(), "metric energy") {
		t.Errorf("got %v, want an error that names the file and the metric", err)
	}
}

// A password that goes to the brokers without TLS is warned of.
func TestAPasswordInClearTextIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := parse(t, "--bus-sasl=plain", "--bus-sasl-username=oona", "--bus-sasl-password-file", file)
	if err != nil {
		t.Fatal(err)
	}
	if warnings := cfg.Warnings(); len(warnings) != 1 || warnings[0].Field != "--bus-sasl" {
		t.Errorf("the warnings are %v", warnings)
	}
}
