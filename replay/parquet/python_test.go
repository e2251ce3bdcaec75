package parquet_test

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/parquet"
)

// columnNames has the names of the columns for metricNames.
var columnNames = []string{"gradient_norm", "loss", "step (metric)", "weird:name", "rare"}

type readColumn struct {
	Count int
	Mean  *float64
}

type readLayer struct {
	Rows   int
	Values map[string]readColumn
}

// DuckDB, pyarrow, pandas and Polars read the values of the frames.
func TestReadByTools(t *testing.T) {
	python := requireTools(t)
	log, frames := randomLog(t, 2, 1500)
	dir := filepath.Join(t.TempDir(), "out")
	if err := extract(t, log, &parquet.Output{Dir: dir, Options: smallOptions()}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "read.py"), dir, strings.Join(columnNames, ","))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var found struct {
		DuckDB, Pyarrow, Pandas, Polars map[string]readLayer
		Frame                           struct {
			First, Last, Steps, Sequences, Seeds int64
			Type                                 string `json:"time_type"`
		}
		States    map[string]int
		Producers map[string]int
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	want := wantLayers(frames)
	for tool, layers := range map[string]map[string]readLayer{"duckdb": found.DuckDB, "pyarrow": found.Pyarrow, "pandas": found.Pandas, "polars": found.Polars} {
		compareLayers(t, tool, layers, want)
	}
	states, producers := map[string]int{}, map[string]int{}
	frame := found.Frame
	frame.First, frame.Last, frame.Steps, frame.Sequences, frame.Seeds = math.MaxInt64, 0, 0, 0, 0
	for _, f := range frames {
		for i, seed := range f.Seeds {
			states[f.States[i].String()]++
			frame.First, frame.Last = min(frame.First, int64(f.ObservedAt)), max(frame.Last, int64(f.ObservedAt))
			frame.Steps, frame.Sequences, frame.Seeds = frame.Steps+f.Step, frame.Sequences+f.Sequence, frame.Seeds+int64(seed)
		}
		producers[string(f.Producer)+"/"+string(rune('0'+f.Epoch))] += len(f.Seeds)
	}
	if found.Frame != frame || frame.Type != "timestamp[us, tz=UTC]" {
		t.Errorf("read %+v, want %+v and a time in UTC", found.Frame, frame)
	}
	compareCounts(t, "states", found.States, states)
	compareCounts(t, "producers", found.Producers, producers)
}

func compareCounts(t *testing.T, what string, got, want map[string]int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s are %v, want %v", what, got, want)
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: %s has %d rows, want %d", what, name, got[name], n)
		}
	}
}

func wantLayers(frames []*oona.Frame) map[string]readLayer {
	type sum struct {
		n   int
		sum float64
	}
	sums := map[string]map[string]sum{}
	rows := map[string]int{}
	for _, f := range frames {
		key := string(f.Run) + "/" + string(f.Layer)
		if sums[key] == nil {
			sums[key] = map[string]sum{}
		}
		rows[key] += len(f.Seeds)
		for _, c := range f.Metrics {
			name := c.Name
			if name == "step" {
				name = "step (metric)"
			}
			for _, v := range c.Values {
				if v == v {
					s := sums[key][name]
					sums[key][name] = sum{s.n + 1, s.sum + float64(v)}
				}
			}
		}
	}
	want := map[string]readLayer{}
	for key, n := range rows {
		l := readLayer{n, map[string]readColumn{}}
		for _, c := range columnNames {
			s := sums[key][c]
			mean := s.sum / float64(s.n)
			l.Values[c] = readColumn{s.n, &mean}
		}
		want[key] = l
	}
	return want
}

func compareLayers(t *testing.T, tool string, got, want map[string]readLayer) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s finds %d layers, want %d", tool, len(got), len(want))
	}
	for key, w := range want {
		g := got[key]
		if g.Rows != w.Rows {
			t.Errorf("%s: %s has %d rows, want %d", tool, key, g.Rows, w.Rows)
		}
		for c, v := range w.Values {
			read := g.Values[c]
			if read.Count != v.Count || (v.Count > 0 && (read.Mean == nil || math.Abs(*read.Mean-*v.Mean) > 1e-9)) {
				t.Errorf("%s: %s: %s has %d values, want %d of mean %g", tool, key, c, read.Count, v.Count, *v.Mean)
			}
		}
	}
}

// requireTools returns a Python with DuckDB, pyarrow, pandas and Polars. Without one it
// skips the test, or fails it if OONA_REQUIRE_PYTHON is set.
func requireTools(t testing.TB) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import duckdb, pandas, polars, pyarrow").Run()
	}
	if err == nil {
		return python
	}
	if os.Getenv("OONA_REQUIRE_PYTHON") != "" {
		t.Fatalf("OONA_REQUIRE_PYTHON is set, but Python with DuckDB, pandas, Polars and pyarrow does not run: %v", err)
	}
	t.Skipf("SKIPPED, the files were NOT read by tools: Python with DuckDB, pandas, Polars and pyarrow does not run (%v); run make python", err)
	return ""
}
