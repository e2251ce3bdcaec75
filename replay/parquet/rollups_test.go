package parquet_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	library "github.com/parquet-go/parquet-go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/schemas/avro"
)

// readTables returns the rows of tables, as DuckDB and pyarrow read them.
func readTables(t *testing.T, python string, tables ...string) [][]map[string]any {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), python, append([]string{filepath.Join("testdata", "tables.py")}, tables...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var rows [][]map[string]any
	if err := json.Unmarshal(out, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// expect fails the test unless a row has exactly these columns and values.
func expect(t *testing.T, row map[string]any, want string) {
	t.Helper()
	var w map[string]any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	for name, v := range w {
		if !reflect.DeepEqual(row[name], v) {
			t.Errorf("%s is %v, want %v", name, row[name], v)
		}
	}
	for name := range row {
		if _, known := w[name]; !known {
			t.Errorf("the column %s is %v; say what it must be", name, row[name])
		}
	}
}

// A rollup has a row for its window and a row for each metric. The rows have all of its fields.
func TestRollups(t *testing.T) {
	python := requireTools(t)
	topics := testTopics(t)
	for group, want := range map[oona.Group]struct {
		window string
		knows  bool
	}{
		oona.Health: {window: `"seeds_seen": 66, "seeds_active": 12, "seeds_dormant": 1, "seeds_germinated": 2, "seeds_training": 3, "seeds_grafting": 4,
			"seeds_stabilization": 5, "seeds_evaluating": 6, "seeds_fine_tuning": 7, "seeds_fossilized": 8, "seeds_culled": 9, "seeds_cancelled": 10, "seeds_rolled_back": 11`},
		oona.Performance: {
			window: `"frames_per_second": 5, "readings_per_second": 50, "steps_per_second": null, "steps": 0, "step_micros": 0, "delay_micros": 99`,
			knows:  true,
		},
	} {
		log := &memoryLog{topic: topics.Rollup(group)}
		for i := range 3 {
			log.add(0, avro.AppendRollup(nil, testRollup(group, i)))
		}
		dir := filepath.Join(t.TempDir(), "out")
		output := &parquet.Output{Dir: dir, Options: parquet.DefaultOptions()}
		if err := extract(t, log, output); err != nil {
			t.Fatal(err)
		}
		if counts := *output.Manifest().Topics[0].Partitions[0].Counts; counts.Rows != 3 || counts.Records != 3 {
			t.Errorf("the counts are %+v, want 3 rows of 3 records", counts)
		}
		table := filepath.Join(dir, "layer_"+group.String())
		const key = `"run": "a", "layer": "enc.0", "timeline": "rank.1", "window_start": 1790000001000000, "window_end": 1790000002000000, "offset": 1, "trigger_incarnation": 3, "trigger_offset": 10, "trigger_index": 1`
		tables := readTables(t, python, table+"_windows", table)
		windows, metrics := tables[0], tables[1]
		if len(windows) != 3 || len(metrics) != 6 {
			t.Fatalf("%d windows and %d metrics, want 3 and 6", len(windows), len(metrics))
		}
		common := `"watermark": 7, "first_offset": 1, "last_offset": 9, "frames": 5, "readings": 50, "duplicates": 0, "generation": 1, "reducer": 2, "catalogue": "0000000000000000", "window_kind": "tumbling", "window_hop_micros": 0, `
		expect(t, windows[1], "{"+key+","+common+want.window+"}")
		if group == oona.Health {
			for s := range oona.State(oona.StateCount) { // the columns are those of the lifecycle
				name := "seeds_" + strings.ToLower(s.String())
				if got := windows[0][name]; got != float64(s+1) {
					t.Errorf("%s is %v, want %d", name, got, s+1)
				}
			}
		}
		if want.knows {
			if got := windows[2]["steps_per_second"]; got != 2.5 {
				t.Errorf("steps_per_second is %v, want 2.5", got)
			}
		}
		expect(t, metrics[2], "{"+key+`, "metric": "loss", "count": 6, "not_measured": 2, "not_measured_active": 1, "infinite": 1, "sum": 12, "min": -2, "max": 4, "mean": 2, "m2": 24, "stddev": 2,
			"histogram": [{"lower": -2, "upper": -1.9571441241754002, "count": 1}, {"lower": -1, "upper": -0.9785720620877001, "count": 1},
				{"lower": -1.1754943508222875e-38, "upper": 1.1754943508222875e-38, "count": 1},
				{"lower": 0.9785720620877001, "upper": 1, "count": 1}, {"lower": 3.9142882483508005, "upper": 4, "count": 2}],
			"worst": [{"seed": 7, "value": 4, "offset": 5}, {"seed": 9, "value": 3, "offset": -1}]}`)
		expect(t, metrics[3], "{"+key+`, "metric": "none", "count": 0, "not_measured": 3, "not_measured_active": 0, "infinite": 0, "sum": 0, "min": null, "max": null, "mean": null, "m2": 0, "stddev": null, "histogram": [], "worst": []}`)
	}
}

// The end of a run has one row with all of its fields, in the folder of the run.
func TestRunEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	log := &memoryLog{topic: "kasmina.events.run.ended"}
	for _, run := range []oona.RunID{"a", "b"} {
		log.add(0, avro.AppendRunEnd(nil, &oona.RunEnd{Run: run, At: 1_790_000_000_000_000, Step: 8, Outcome: oona.RunFailed, Reason: "loss", Timeline: "t", Producer: "p", ProducerEpoch: 7}))
	}
	output := &parquet.Output{Dir: dir, Options: parquet.DefaultOptions()}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	if got, want := *output.Manifest().Topics[0].Partitions[0].Counts, (manifest.Counts{Records: 2, Readings: 2, Rows: 2}); got != want {
		t.Errorf("the counts are %+v, want %+v", got, want)
	}
	type row struct { // as in the file
		At            int64  `parquet:"time,timestamp(microsecond)"`
		Step          int64  `parquet:"step"`
		Outcome       string `parquet:"outcome"`
		Reason        string `parquet:"reason"`
		Timeline      string `parquet:"timeline"`
		Producer      string `parquet:"producer_id"`
		ProducerEpoch int64  `parquet:"producer_epoch,timestamp(microsecond)"`
		Offset        int64  `parquet:"offset"`
	}
	rows, err := library.ReadFile[row](filepath.Join(dir, "events_run_ended", "run=b", "part-0-1-1.parquet"))
	if want := (row{1_790_000_000_000_000, 8, "FAILED", "loss", "t", "p", 7, 1}); err != nil || len(rows) != 1 || rows[0] != want {
		t.Errorf("the rows are %+v, want %+v (%v)", rows, want, err)
	}
}

// An event has one row with all of its fields.
func TestEvents(t *testing.T) {
	python := requireTools(t)
	dir := filepath.Join(t.TempDir(), "out")
	e := &oona.SeedEvent{
		Run: "a", Layer: "enc.0", Seed: 4, Sequence: 3, At: 1_790_000_000_000_000, Step: 8, From: oona.Training, To: oona.Culled, Reason: "loss",
		Evidence: map[string]float64{"loss": 2, "gain": -1}, Command: "c", Actor: "me", Node: "n", Session: 1, Epoch: 2, JournalIndex: 3, Blueprint: "b", Mark: oona.EventRewound,
		TriggerPosition: 4, TriggerIndex: 5, Incarnation: 6, Timeline: "t", Producer: "p", ProducerEpoch: 7,
	}
	log := &memoryLog{topic: "kasmina.events.seed.culled"}
	log.add(0, []byte("not an event"))
	log.add(0, avro.AppendEvent(nil, e))
	output := &parquet.Output{Dir: dir, Options: parquet.DefaultOptions()}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	if got, want := *output.Manifest().Topics[0].Partitions[0].Counts, (manifest.Counts{Records: 2, Readings: 1, Rows: 1, Unread: 1}); got != want {
		t.Errorf("the counts are %+v, want %+v", got, want)
	}
	rows := readTables(t, python, filepath.Join(dir, "events_seed_culled"))[0]
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	expect(t, rows[0], `{"run": "a", "layer": "enc.0", "time": 1790000000000000, "step": 8, "sequence": 3, "seed": 4, "from_state": 2, "to_state": 8, "reason": "loss",
		"evidence": [{"name": "gain", "value": -1}, {"name": "loss", "value": 2}], "mark": "REWOUND", "command_id": "c", "actor": "me", "node": "n", "session": 1, "epoch": 2,
		"journal_index": 3, "blueprint_id": "b", "trigger_position": 4, "trigger_index": 5, "incarnation": 6, "timeline": "t", "producer_id": "p", "producer_epoch": 7, "offset": 1}`)
}
