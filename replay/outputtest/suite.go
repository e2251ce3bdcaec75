// Package outputtest is the conformance suite of outputs that write to a directory; for tests.
package outputtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

// New returns an output that writes to a directory, and whose files are small: a file has
// at most a few records.
type New func(dir string, selection records.Selection) replay.Output

// Run checks an output.
func Run(t *testing.T, open New) {
	t.Run("resumes at each offset", func(t *testing.T) { resumes(t, open) })
	t.Run("empty range", func(t *testing.T) { empty(t, open) })
	t.Run("nothing is selected", func(t *testing.T) { nothing(t, open) })
	t.Run("continues", func(t *testing.T) { continues(t, open) })
	t.Run("gap", func(t *testing.T) { gap(t, open) })
	t.Run("other selection", func(t *testing.T) { other(t, open) })
}

// Log is a log in memory. Reading fails at an offset of a partition, unless it is negative.
type Log struct {
	Topic string

	messages []*message.Message
	failAt   int64
}

// ErrRead is what reading fails with.
var ErrRead = errors.New("the test lets the log fail")

// NewLog returns a log of a partition with frames, a tick, and a record that cannot be
// decoded. It has a gap in its offsets.
func NewLog() *Log {
	l := &Log{Topic: "kasmina.telemetry.seed.metrics", failAt: -1}
	for i := range int64(24) {
		f := &oona.Frame{
			Run: "a", Layer: oona.LayerID(fmt.Sprintf("enc.%d", i%3)), Producer: "rank.0", Epoch: 1, Sequence: i, ObservedAt: 1_790_000_000_000_000 + oona.Micros(i), Step: i,
			Seeds: []oona.SeedID{1, 2, 3}, States: []oona.State{oona.Training, oona.Dormant, oona.Grafting},
			Metrics: []oona.Column{{Name: "loss", Values: []float32{float32(i), 1, 2}}},
		}
		value := avro.AppendFrame(nil, f)
		msg := message.NewMessage("", value)
		switch i {
		case 5:
			msg.Payload = []byte("not a frame")
		case 9:
			msg.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
		}
		offset := i
		if i > 12 {
			offset += 2
		}
		msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: l.Topic, Offset: offset}))
		l.messages = append(l.messages, msg)
	}
	return l
}

// End is the offset after the last record of a Log.
const End = 26

// Extents returns what the log holds.
func (l *Log) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{l.Topic: {{End: End}}}, nil
}

// Read reads a range.
func (l *Log) Read(_ context.Context, _ string, r bus.Range, take func(*message.Message) error) error {
	for _, msg := range l.messages {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		if at.Offset < r.From || at.Offset >= r.End {
			continue
		}
		if l.failAt >= 0 && at.Offset >= l.failAt {
			return ErrRead
		}
		if err := take(msg); err != nil {
			return err
		}
	}
	return nil
}

func extract(t *testing.T, output replay.Output, l *Log, selection records.Selection, from, end int64) error {
	t.Helper()
	e := &replay.Extraction{Log: l, Selection: selection, Output: output}
	return e.Extract(t.Context(), l.Topic, bus.Range{From: from, End: end})
}

// Files returns the hashes of the files of a directory, by name.
func Files(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	all := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = sha256.Sum256(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// resumes compares the files of one run with those of runs that fail at each offset.
func resumes(t *testing.T, open New) {
	whole := t.TempDir()
	if err := extract(t, open(whole, records.Selection{}), NewLog(), records.Selection{}, 0, End); err != nil {
		t.Fatal(err)
	}
	want := Files(t, whole)
	if len(want) < 4 {
		t.Fatalf("the files are too large for this test: %v", slices.Collect(maps.Keys(want)))
	}
	for at := range int64(End) {
		dir, log := t.TempDir(), NewLog()
		for _, log.failAt = range []int64{at, min(at+3, End-1)} {
			if err := extract(t, open(dir, records.Selection{}), log, records.Selection{}, 0, End); !errors.Is(err, ErrRead) {
				t.Fatalf("%v, want ErrRead", err)
			}
			for name := range Files(t, dir) {
				if filepath.Ext(name) == manifest.Temporary {
					t.Errorf("stopped at %d: %s is left", log.failAt, name)
				}
			}
		}
		log.failAt = -1
		if err := extract(t, open(dir, records.Selection{}), log, records.Selection{}, 0, End); err != nil {
			t.Fatal(err)
		}
		if got := Files(t, dir); !maps.Equal(got, want) {
			t.Errorf("resumed at %d: %v, want %v", at, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

func partition(t *testing.T, dir string) manifest.Partition {
	t.Helper()
	m, err := manifest.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Topics) != 1 || len(m.Topics[0].Partitions) != 1 {
		t.Fatalf("the manifest has %+v", m.Topics)
	}
	return m.Topics[0].Partitions[0]
}

func empty(t *testing.T, open New) {
	dir := t.TempDir()
	if err := extract(t, open(dir, records.Selection{}), NewLog(), records.Selection{}, 7, 7); err != nil {
		t.Fatal(err)
	}
	if p := partition(t, dir); len(p.Files) != 0 || p.From != p.End {
		t.Errorf("%+v", p)
	}
}

// nothing selects a run that is not in the log.
func nothing(t *testing.T, open New) {
	dir, selection := t.TempDir(), records.Selection{Runs: []oona.RunID{"other"}}
	for range 2 { // the second has nothing to do
		if err := extract(t, open(dir, selection), NewLog(), selection, 0, End); err != nil {
			t.Fatal(err)
		}
		want := manifest.Counts{Records: 24, Readings: 66, Skipped: 66, Own: 1, Unread: 1}
		if p := partition(t, dir); len(p.Files) != 0 || p.End != End || p.Counts == nil || *p.Counts != want {
			t.Errorf("%+v, counts %+v, want %+v", p, p.Counts, want)
		}
	}
}

// continues extends a range, and counts all of it.
func continues(t *testing.T, open New) {
	dir, selection := t.TempDir(), records.Selection{Seeds: []oona.SeedID{2, 3}}
	for _, end := range []int64{4, 4, 14, End, 3} {
		if err := extract(t, open(dir, selection), NewLog(), selection, 0, end); err != nil {
			t.Fatal(err)
		}
	}
	want := manifest.Counts{Records: 24, Readings: 66, Rows: 44, Skipped: 22, Own: 1, Unread: 1}
	if p := partition(t, dir); p.Counts == nil || *p.Counts != want || p.End != End {
		t.Errorf("%+v, want %+v", p.Counts, want)
	}
}

// gap refuses a range that does not continue what there is.
func gap(t *testing.T, open New) {
	dir := t.TempDir()
	if err := extract(t, open(dir, records.Selection{}), NewLog(), records.Selection{}, 2, 6); err != nil {
		t.Fatal(err)
	}
	before := Files(t, dir)
	for _, from := range []int64{0, 8} {
		if err := extract(t, open(dir, records.Selection{}), NewLog(), records.Selection{}, from, End); err == nil {
			t.Errorf("a range from %d continues 2 to 6", from)
		}
	}
	if after := Files(t, dir); !maps.Equal(before, after) {
		t.Error("the files have changed")
	}
}

// other refuses a directory with another selection.
func other(t *testing.T, open New) {
	dir, selection := t.TempDir(), records.Selection{Seeds: []oona.SeedID{1}}
	if err := extract(t, open(dir, records.Selection{}), NewLog(), records.Selection{}, 0, 6); err != nil {
		t.Fatal(err)
	}
	if err := extract(t, open(dir, selection), NewLog(), selection, 0, End); err == nil {
		t.Error("a directory has two selections")
	}
}
