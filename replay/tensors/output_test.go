package tensors_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/replay/tensors"
)

// table is an output that fails before the record at an offset, as if the process were killed. Only
// records below finished remain.
type table struct {
	got      []int64
	fail     int64 // offset before which it fails; 0 means never
	finished int64
}

var errKilled = errors.New("killed")

func (o *table) Open(_ context.Context, _ string, r bus.Range) (replay.Writer, int64, error) {
	o.got = slices.DeleteFunc(o.got, func(at int64) bool { return at >= o.finished })
	return o, max(r.From, o.finished), nil
}

func (o *table) Write(r *records.Record) error {
	if r.At.Offset == o.fail && o.fail > 0 {
		return errKilled
	}
	o.got = append(o.got, r.At.Offset)
	return nil
}

func (o *table) Close(end int64) error {
	o.finished = end
	return nil
}

func (o *table) Abort() error { return nil }

const framesOfOutput = 14

// resolving is a topic in which every third frame has tensors, and a store of them.
type resolving struct {
	*installation
	store *claimcheck.Store
}

func newResolving(t *testing.T) *resolving {
	t.Helper()
	r := &resolving{newInstallation(t), openStore(t)}
	for n := range framesOfOutput {
		var contents []string
		if n%3 == 0 {
			contents = []string{"same", strings.Repeat("x", n+1)}
		}
		for _, content := range contents {
			if _, _, err := r.store.CheckIn(t.Context(), strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		r.publish(r.topics.Late, encoded(contents...))
	}
	return r
}

// extract replays the topic. The error is that of the output.
func (r *resolving) extract(out replay.Output, dir string, end int64) error {
	e := replay.Extraction{Log: r.bus, Output: &tensors.Output{Next: out, Topics: r.topics, Resolver: &tensors.Resolver{Store: r.store, Dir: dir}}}
	return e.Extract(r.t.Context(), r.topics.Late, bus.Range{End: end})
}

func index(t *testing.T, dir string, topic string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, tensors.Folder, topic+"-00000.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOutput(t *testing.T) {
	r := newResolving(t)
	dir, whole := t.TempDir(), new(table)
	extents, err := r.bus.Extents(t.Context(), r.topics.Late)
	if err != nil {
		t.Fatal(err)
	}
	end := extents[r.topics.Late][0].End
	if err := r.extract(whole, dir, end); err != nil {
		t.Fatal(err)
	}
	want := index(t, dir, r.topics.Late)
	tensorsSeen := 0
	for decoder := json.NewDecoder(bytes.NewReader(want)); decoder.More(); tensorsSeen++ {
		var e tensors.Entry
		if err := decoder.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, tensors.Folder, e.File)); err != nil || e.Offset%3 != 0 || e.Run != "r" || e.DType != "uint8" {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if len(whole.got) != int(end) || tensorsSeen != 2*((int(end)+2)/3) {
		t.Errorf("%d records were passed on, and %d tensors are in the index", len(whole.got), tensorsSeen)
	}

	// However the replay is interrupted, the result is the same.
	for kill := int64(1); kill < end; kill++ {
		for _, finished := range []int64{0, kill / 2, kill} {
			dir, out := t.TempDir(), &table{fail: kill, finished: 0}
			if err := r.extract(out, dir, end); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			out.fail, out.finished = 0, finished
			name := filepath.Join(dir, tensors.Folder, r.topics.Late+"-00000.jsonl")
			if text := index(t, dir, r.topics.Late); kill%2 == 0 { // make the last line incomplete
				if err := os.Truncate(name, max(0, int64(len(text))-10)); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.extract(out, dir, end); err != nil {
				t.Fatal(err)
			}
			if got := index(t, dir, r.topics.Late); !bytes.Equal(got, want) || !slices.Equal(out.got, whole.got) {
				t.Fatalf("killed at %d, with %d finished: %d records, and the index is\n%swant\n%s", kill, finished, len(out.got), got, want)
			}
		}
	}

	// If a directory was written without tensors, they are added.
	dir = t.TempDir()
	out := &table{got: slices.Clone(whole.got), finished: end}
	if err := r.extract(out, dir, end); err != nil || !bytes.Equal(index(t, dir, r.topics.Late), want) || !slices.Equal(out.got, whole.got) {
		t.Errorf("resolved later: %v", err)
	}
	// Records whose output is complete are not read again.
	e := replay.Extraction{Log: r.bus, Output: &tensors.Output{Next: out, Topics: r.topics, Resolver: &tensors.Resolver{Store: r.store, Dir: dir}}}
	read := 0
	e.Read = func(*records.Record) { read++ }
	if err := e.Extract(t.Context(), r.topics.Late, bus.Range{End: end}); err != nil || read != 0 {
		t.Errorf("%d records were read again: %v", read, err)
	}
}

// A tensor that cannot be resolved is in the index, with the reason.
func TestOutputLost(t *testing.T) {
	i := newInstallation(t)
	i.publish(i.topics.Late, encoded("gone"))
	dir, told := t.TempDir(), 0
	resolver := &tensors.Resolver{Store: openStore(t), Dir: dir, Lost: func(*oona.Frame, *oona.Tensor, error) { told++ }}
	e := replay.Extraction{Log: i.bus, Output: &tensors.Output{Next: new(table), Topics: i.topics, Resolver: resolver}}
	if err := e.Extract(t.Context(), i.topics.Late, bus.Range{End: 1}); err != nil {
		t.Fatal(err)
	}
	var entry tensors.Entry
	if err := json.Unmarshal(index(t, dir, i.topics.Late), &entry); err != nil || entry.File != "" || entry.Lost != claimcheck.ErrNotFound.Error() || told != 1 {
		t.Errorf("%+v, told %d times, error %v", entry, told, err)
	}
	// Topics without frames have no index.
	if err := e.Extract(t.Context(), i.topics.LayerHealth, bus.Range{End: 1}); err != nil {
		t.Fatal(err)
	}
	if names := files(t, dir); len(names) != 2 {
		t.Errorf("the files are %q", names)
	}
}
