package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
)

// A full disk says what this call has written, and what is kept.
func TestFullDiskSaysWhatIsKept(t *testing.T) {
	dir := t.TempDir()
	r := &replayRun{Archive: dir}
	if all, err := r.finished(); err != nil || all != (files{}) {
		t.Fatalf("of an empty directory: %+v, %v", all, err)
	}
	m := manifest.Manifest{Topics: []manifest.Topic{{Name: "a", Partitions: []manifest.Partition{{Files: []manifest.File{{Bytes: 5}, {Bytes: 7}}}, {Files: []manifest.File{{Bytes: 11}}}}}}}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, cause := range []error{errSpace, syscall.ENOSPC, syscall.EDQUOT} {
		err := r.ended(fmt.Errorf("write: %w", cause), files{1, 5})
		full, ok := errors.AsType[*diskFullError](err)
		if !ok || !errors.Is(err, cause) || full.Dir != dir || full.Written != (files{2, 18}) || full.Kept != (files{3, 23}) {
			t.Errorf("%v: %+v", cause, full)
		}
	}
	if err := r.ended(errInterrupted, files{}); err != errInterrupted { //nolint:errorlint // it must be the same
		t.Errorf("another error became %v", err)
	}
}

// endless is a log of one partition with more records than any disk has room for.
type endless struct{}

func (endless) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{topics[0]: {{End: math.MaxInt64}}}, nil
}

func (endless) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	for offset := r.From; ; offset++ {
		msg := message.NewMessage("", bytes.Repeat([]byte{byte(offset)}, 100))
		msg.SetContext(bus.WithPosition(ctx, bus.Position{Topic: topic, Partition: r.Partition, Offset: offset}))
		if err := take(msg); err != nil {
			return err
		}
	}
}

var _ replay.Log = endless{}

// If the files cannot fit, a replay is refused. If they may not, it says so, and goes on.
func TestReplayThatMayNotFit(t *testing.T) {
	const records = 1 << 55
	for _, c := range []struct {
		what    string
		run     replayRun
		refused bool
		says    bool
	}{
		{"an archive", replayRun{Archive: t.TempDir(), Codec: "null"}, true, false},
		{"typed records", replayRun{Avro: replayAvro{Avro: t.TempDir(), AvroCodec: "null"}}, true, false},
		{"typed records of a run", replayRun{Avro: replayAvro{Avro: t.TempDir(), AvroCodec: "null"}, Select: replaySelection{Run: []oona.RunID{"a"}}}, false, true},
		{"tables of a run", replayRun{Parquet: replayParquet{Parquet: t.TempDir()}, Select: replaySelection{Run: []oona.RunID{"a"}}}, false, true},
		{"tables of rollups", replayRun{Parquet: replayParquet{Parquet: t.TempDir()}, Aggregate: true}, false, true},
		{"a comparison", replayRun{Aggregate: true}, false, false},
		{"lines", replayRun{Lines: true}, false, false},
	} {
		var messages bytes.Buffer
		plan := []planned{{Topic: "t", End: records, Records: records}}
		err := c.run.fits(t.Context(), &replaying{log: endless{}, messages: &messages}, plan)
		if errors.Is(err, errNoSpace) != c.refused || err != nil && !c.refused || strings.Contains(messages.String(), "may have too little space") != c.says {
			t.Errorf("%s: %v, %q", c.what, err, &messages)
		}
		if bound := plan[0].AtMost; (bound > 0) != c.says || bound > 0 && bound < records*100 {
			t.Errorf("%s: at most %d bytes", c.what, bound)
		}
	}
}

// Frames that are in no rollup are counted, and nothing is said of side topics: nothing is
// sent there.
func TestAggregateCountsWhatIsAside(t *testing.T) {
	w := newWatched(t)
	w.fill()
	status, out, messages := w.replayOf("--aggregate", "--json")
	if f := parse[foldedAgain](t, out); status != 0 || messages != "" || f.Quarantined != 4 || f.Undecoded != 1 || f.Frames != 0 {
		t.Errorf("status %d, %s, %q", status, out, messages)
	}
}
