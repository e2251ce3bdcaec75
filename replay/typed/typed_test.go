package typed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/outputtest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/replay/typed"
	"github.com/morphogenetic/oona/schemas/avro"
)

func TestConformance(t *testing.T) {
	for _, codec := range []string{"null", "zstandard"} {
		t.Run(codec, func(t *testing.T) {
			outputtest.Run(t, func(dir string, selection records.Selection) replay.Output {
				return &typed.Output{Dir: dir, Options: typed.Options{Codec: codec, FileBytes: 200, Selection: selection}}
			})
		})
	}
}

// write writes records at the offsets 0, 1, ..., and returns the files.
func write(t *testing.T, options typed.Options, values ...[]byte) (dir string, files []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "out")
	output := &typed.Output{Dir: dir, Options: options}
	w, _, err := output.Open(t.Context(), "any.topic", bus.Range{End: int64(len(values))})
	if err != nil {
		t.Fatal(err)
	}
	decoder := records.NewDecoder()
	for i, value := range values {
		msg := message.NewMessage("", value)
		msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: "any.topic", Offset: int64(i)}))
		r, err := decoder.Decode(msg)
		if err != nil {
			t.Fatal(err)
		}
		options.Selection.Narrow(r)
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(int64(len(values))); err != nil {
		t.Fatal(err)
	}
	for _, f := range output.Manifest().Topics[0].Partitions[0].Files {
		files = append(files, filepath.Join(dir, f.Name))
	}
	return dir, files
}

func values() (all [][]byte) {
	for i := range int64(3) {
		all = append(all, avro.AppendFrame(nil, &oona.Frame{
			Run: "a", Layer: "enc.0", Producer: "rank.0", Epoch: 1, Sequence: i, ObservedAt: 1_790_000_000_000_000, Step: i,
			Seeds: []oona.SeedID{1, 2}, States: []oona.State{oona.Training, oona.Dormant}, Metrics: []oona.Column{{Name: "loss", Values: []float32{float32(i), 2}}},
		}))
	}
	old := &oona.Rollup{Group: oona.Health, Run: "a", Layer: "enc.0", Start: 10, End: 20, Reducer: 1, Metrics: []oona.MetricSummary{{Name: "loss", Count: 2}, {Name: "norm"}}}
	recent := *old
	recent.Reducer = 2
	event := &oona.SeedEvent{Run: "a", Layer: "enc.0", Seed: 2, Sequence: 1, At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated, Evidence: map[string]float64{"loss": 2}}
	end := &oona.RunEnd{Run: "a", At: 1_790_000_000_000_000, Step: 3, Outcome: oona.RunStopped}
	return append(all, avro.AppendRollup(nil, old), avro.AppendRollup(nil, &recent), avro.AppendEvent(nil, event), avro.AppendRunEnd(nil, end))
}

// fastavro reads the records of each kind and codec. Records of an older version, and narrowed
// records, are written in the latest version.
func TestFastavro(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import cramjam, fastavro").Run()
	}
	if err != nil {
		if os.Getenv("OONA_REQUIRE_FASTAVRO") == "1" {
			t.Fatalf("OONA_REQUIRE_FASTAVRO=1, and python3 with fastavro and cramjam does not run: %v", err)
		}
		t.Skipf("SKIPPED, TYPED RECORDS WERE NOT READ BY FASTAVRO: python3 with fastavro and cramjam does not run (%v); `make python` installs them", err)
	}
	for _, codec := range typed.Codecs {
		_, files := write(t, typed.Options{Codec: codec, FileBytes: 1 << 20, Selection: records.Selection{Metrics: []string{"loss"}}}, values()...)
		if len(files) != 4 {
			t.Fatalf("%s: the files are %q, want one for each kind of record", codec, files)
		}
		cmd := exec.CommandContext(t.Context(), python, append([]string{filepath.Join("testdata", "dump.py")}, files...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		type dumped struct {
			Sequence int64 `json:"sequence"`
			Seeds    []int `json:"seed_ids"`
			Reducer  int   `json:"reducer"`
			To       int   `json:"to_state"`
			At       int64 `json:"at"`
			Observed int64 `json:"observed_at"`
			Metrics  []any `json:"metrics"`
			Start    int64 `json:"window_start"`
			Outcome  string
		}
		var got []dumped
		for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
			var d dumped
			if err := decoder.Decode(&d); err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if len(got) != 7 || got[2].Sequence != 2 || !slices.Equal(got[1].Seeds, []int{1, 2}) || got[0].Observed != 1_790_000_000_000_000 ||
			got[3].Reducer != 1 || len(got[3].Metrics) != 1 || got[4].Reducer != 2 || got[4].Start != 10 || got[5].To != int(oona.Germinated) || got[6].Outcome != "STOPPED" {
			t.Errorf("%s: fastavro reads %s", codec, out)
		}
	}
}

// Verify finds files that are damaged or missing, and a log with other records.
func TestVerify(t *testing.T) {
	log, dir := outputtest.NewLog(), filepath.Join(t.TempDir(), "out")
	selection := records.Selection{Seeds: []oona.SeedID{1, 3}}
	output := &typed.Output{Dir: dir, Options: typed.Options{Codec: "deflate", FileBytes: 200, Selection: selection}}
	e := &replay.Extraction{Log: log, Selection: selection, Output: output}
	if err := e.Extract(t.Context(), log.Topic, bus.Range{End: outputtest.End}); err != nil {
		t.Fatal(err)
	}
	found, err := typed.Verify(t.Context(), dir, log)
	if err != nil || len(found.Faults) != 0 || found.Compared != 24 || found.Files < 4 {
		t.Fatalf("%v, %+v", err, found)
	}
	files := output.Manifest().Topics[0].Partitions[0].Files
	damaged := filepath.Join(dir, files[0].Name)
	content, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := errors.Join(os.WriteFile(damaged, content, 0o666), os.Remove(filepath.Join(dir, files[1].Name))); err != nil {
		t.Fatal(err)
	}
	found, err = typed.Verify(t.Context(), dir, otherLog{log})
	if err != nil || len(found.Faults) != 3 {
		t.Fatalf("%v, %+v", err, found)
	}
	for i, want := range []string{files[0].Name, files[1].Name, "the log has"} {
		if what := found.Faults[i].What; !strings.Contains(what, want) {
			t.Errorf("fault %d is %q, want %q", i, what, want)
		}
	}
}

// otherLog has one record less.
type otherLog struct{ *outputtest.Log }

func (l otherLog) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	return l.Log.Read(ctx, topic, bus.Range{Partition: r.Partition, From: r.From + 1, End: r.End}, take)
}

// A directory with other options is refused, and the error names the field.
func TestOtherOptions(t *testing.T) {
	options := typed.Options{Codec: "null", FileBytes: 1 << 20}
	dir, _ := write(t, options, values()[0])
	for field, change := range map[string]func(*typed.Options){
		"codec":           func(o *typed.Options) { o.Codec = "snappy" },
		"file_bytes":      func(o *typed.Options) { o.FileBytes = 1 },
		"selection.seeds": func(o *typed.Options) { o.Selection.Seeds = []oona.SeedID{1} },
	} {
		other := options
		change(&other)
		output := &typed.Output{Dir: dir, Options: other}
		if _, _, err := output.Open(t.Context(), "any.topic", bus.Range{End: 1}); !errors.Is(err, typed.ErrOptions) || !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%v, want ErrOptions with %s", err, field)
		}
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "notes.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&typed.Output{Dir: foreign, Options: options}).Open(t.Context(), "any.topic", bus.Range{End: 1}); !errors.Is(err, typed.ErrForeign) {
		t.Errorf("%v, want ErrForeign", err)
	}
}
