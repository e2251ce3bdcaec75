package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// replayOf runs oona replay on the broker.
func (w *watched) replayOf(args ...string) (status int, out, messages string) {
	w.t.Helper()
	return run(w.t, append([]string{"replay", "--brokers", w.brokers, "--group="}, args...)...)
}

// lines runs oona replay --lines, and returns the lines.
func (w *watched) lines(args ...string) []string {
	w.t.Helper()
	status, out, messages := w.replayOf(append([]string{"--lines"}, args...)...)
	if status != 0 {
		w.t.Fatalf("replay --lines %v: status %d, %s", args, status, messages)
	}
	return strings.SplitAfter(out, "\n")[:strings.Count(out, "\n")]
}

func framed(layer oona.LayerID, sequence int64) *oona.Frame {
	return &oona.Frame{
		Run: "a", Layer: layer, Producer: "rank.0", Epoch: 1, Sequence: sequence, ObservedAt: 1_790_000_000_000_000 + oona.Micros(sequence), Step: sequence,
		Seeds: []oona.SeedID{1, 2}, States: []oona.State{oona.Training, oona.Dormant},
		Metrics: []oona.Column{{Name: "loss", Values: []float32{float32(sequence), 1}}, {Name: "norm", Values: []float32{2, 3}}},
	}
}

// fill writes frames of two layers, a tick, and a record that is not a frame.
func (w *watched) fill() {
	w.t.Helper()
	for i := range int64(4) {
		f := framed(oona.LayerID([]string{"enc.0", "enc.1"}[i%2]), i)
		w.publish(w.topics.SeedMetrics, avro.AppendFrame(nil, f), withKey, string(oona.Key(f.Run, f.Layer)), oona.HeaderPath, "ingest-0")
	}
	w.publish(w.topics.SeedMetrics, avro.AppendTick(nil, oona.Tick{Worker: "w"}), oona.HeaderRecord, oona.TickRecord)
	w.publish(w.topics.SeedMetrics, []byte("not a frame"))
}

// oona replay --lines prints what oona watch --json prints.
func TestReplayLines(t *testing.T) {
	w := newWatched(t)
	w.fill()
	lines := w.lines(w.topics.SeedMetrics)
	watched := w.watch(w.topics.SeedMetrics, "6", "--json")
	if strings.Join(lines, "") != strings.Join(watched, "\n")+"\n" {
		t.Errorf("%s\nand watch prints\n%s", lines, watched)
	}
	if lines := w.lines("--from", "offset:1", "--until", "offset:3", w.topics.SeedMetrics); len(lines) != 2 || lines[0] != watched[1]+"\n" {
		t.Errorf("of a range: %s", lines)
	}
	narrow := w.lines("--run=a", "--layer", "enc.1", "--seed", "2", "--metric=norm", "--state", "dormant", w.topics.SeedMetrics)
	if len(narrow) != 2 {
		t.Fatalf("of a selection: %s", narrow)
	}
	var shown struct {
		Offset int64
		Frame  struct {
			Seeds   []int `json:"seed_ids"`
			States  []string
			Metrics []struct{ Values []float32 }
		}
	}
	if err := json.Unmarshal([]byte(narrow[1]), &shown); err != nil {
		t.Fatal(err)
	}
	if f := shown.Frame; shown.Offset != 3 || len(f.Seeds) != 1 || f.Seeds[0] != 2 || f.States[0] != "DORMANT" || len(f.Metrics) != 1 || f.Metrics[0].Values[0] != 3 {
		t.Errorf("of a selection: %s", narrow[1])
	}
	_, _, messages := w.replayOf("--lines", w.topics.SeedMetrics)
	if !strings.Contains(messages, "left out: 1;") {
		t.Errorf("the undecodable record is not mentioned: %q", messages)
	}
}

// Records of events are found by their schema, on any topic.
func TestReplayEvents(t *testing.T) {
	w := newWatched(t)
	e := &oona.SeedEvent{Run: "a", Layer: "enc.0", Seed: 3, Sequence: 1, At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated, Reason: "asked", Evidence: map[string]float64{"loss": 2}}
	w.publish(w.topics.Quarantine, avro.AppendEvent(nil, e))
	lines := w.lines(w.topics.Quarantine, "--seed=3")
	if len(lines) != 1 || !strings.Contains(lines[0], `"to_state":"GERMINATED"`) || !strings.Contains(lines[0], `"evidence":{"loss":2}`) {
		t.Errorf("%s", lines)
	}
	if status, out, messages := w.replayOf("--lines", w.topics.Quarantine, "--seed=4"); status != exitNothing || out != "" {
		t.Errorf("of another seed: status %d, %q, %q", status, out, messages)
	}
}

// What cannot be meant is refused before anything is read.
func TestReplayRefusals(t *testing.T) {
	w := newWatched(t)
	for _, c := range []struct {
		says string
		args []string
	}{
		{"say what to do", nil},
		{"exclude each other", []string{"--archive", t.TempDir(), "--aggregate"}},
		{"exclude each other", []string{"--lines", "--archive", t.TempDir()}},
		{"takes all records", []string{"--archive", t.TempDir(), "--run=a"}},
		{"takes all records", []string{"--aggregate", "--metric=loss"}},
		{"unknown state", []string{"--lines", "--state=asleep"}},
		{"--seed", []string{"--lines", "--seed=-1"}},
		{"--layer", []string{"--lines", "kasmina/telemetry/seed/enc.0/1/metrics"}},
		{"no partition 5", []string{"--lines", "--partition=5"}},
		{bus.ErrNoTopic.Error(), []string{"--lines", "kasmina.events.seed.none"}},
	} {
		if status, out, messages := w.replayOf(c.args...); status == 0 || out != "" || !strings.Contains(messages, c.says) {
			t.Errorf("%v: status %d, %q, %q; want %q", c.args, status, out, messages, c.says)
		}
	}
}

// oona replay --avro writes files, continues them, and verify counts the log again.
func TestReplayAvro(t *testing.T) {
	w := newWatched(t)
	w.fill()
	dir := filepath.Join(t.TempDir(), "typed")
	replayed := func(args ...string) (int, *manifest.Manifest, string) {
		status, out, messages := w.replayOf(append([]string{"--avro", dir, "--json", w.topics.SeedMetrics}, args...)...)
		m := new(manifest.Manifest)
		if status == 0 {
			if err := json.Unmarshal([]byte(out), m); err != nil {
				t.Fatal(err)
			}
		}
		return status, m, messages
	}
	want := manifest.Counts{Records: 6, Readings: 8, Rows: 2, Skipped: 6, Own: 1, Unread: 1}
	for _, until := range []string{"offset:2", "offset:6", "now"} {
		status, m, messages := replayed("--until", until, "--layer=enc.1", "--seed=2")
		if status != 0 {
			t.Fatal(messages)
		}
		if p := m.Topics[0].Partitions[0]; until != "offset:2" && (*p.Counts != want || p.End != 6) {
			t.Errorf("until %s: %+v, want %+v", until, p.Counts, want)
		}
	}
	if status, _, messages := replayed("--layer=enc.0", "--seed=2"); status == 0 || !strings.Contains(messages, "selection.layers") {
		t.Errorf("another selection: status %d, %q", status, messages)
	}
	if status, out, messages := w.replayOf("verify", dir); status != 0 || !strings.Contains(out, "0 faults") {
		t.Errorf("verify: status %d, %q, %q", status, out, messages)
	}
	w.publish(w.topics.SeedMetrics, []byte("x"))
	if status, _, messages := replayed("--until=now", "--layer=enc.1", "--seed=2"); status != 0 {
		t.Fatal(messages)
	}
	if status, _, _ := w.replayOf("verify", dir, "--offline"); status != 0 {
		t.Errorf("verify --offline: status %d", status)
	}
}

// oona replay --to-topic sends records with key, headers and value, and says where they
// are from.
func TestReplayToTopic(t *testing.T) {
	w := newWatched(t)
	w.fill()
	other := w.topics.Quarantine // any other topic: to one of Oona's, only with --yes
	if status, _, messages := w.replayOf("--to-topic", other, w.topics.SeedMetrics); status == 0 || !strings.Contains(messages, "--yes") {
		t.Errorf("to a topic of Oona: status %d, %q", status, messages)
	}
	if status, _, messages := w.replayOf("--to-topic", w.topics.SeedMetrics, "--yes", w.topics.SeedMetrics); status == 0 || !strings.Contains(messages, errSameTopic.Error()) {
		t.Errorf("to itself: status %d, %q", status, messages)
	}
	if status, _, messages := w.replayOf("--to-topic", "no.such.topic", w.topics.SeedMetrics); status == 0 || !strings.Contains(messages, "no.such.topic") {
		t.Errorf("to no topic: status %d, %q", status, messages)
	}
	if status, out, messages := w.replayOf("--to-topic", other, "--yes", w.topics.SeedMetrics); status != 0 || !strings.Contains(out, "6 records sent") {
		t.Fatalf("status %d, %q, %q", status, out, messages)
	}
	sent := recordsOf(t, w, other)
	was := recordsOf(t, w, w.topics.SeedMetrics)
	for i, got := range sent {
		at, want := positioned(t, got), was[i]
		if from := got.Metadata.Get(headerReplayedFrom); from != fmt.Sprintf("%s/0/%d", w.topics.SeedMetrics, i) {
			t.Errorf("record %d is from %q", i, from)
		}
		delete(got.Metadata, headerReplayedFrom)
		if !bytes.Equal(got.Payload, want.Payload) || !bytes.Equal(at.Key, positioned(t, want).Key) || !maps.Equal(got.Metadata, want.Metadata) {
			t.Errorf("record %d is %q, %v; want %q, %v", i, got.Payload, got.Metadata, want.Payload, want.Metadata)
		}
	}
	if status, out, _ := w.replayOf("--to-topic", w.topics.Late, "--yes", "--json", "--seed=2", "--same-partition", w.topics.SeedMetrics); status != 0 || !strings.Contains(out, `: 4`) {
		t.Fatalf("of a seed: status %d, %q", status, out)
	}
	var f oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(recordsOf(t, w, w.topics.Late)[1].Payload, &f); err != nil || len(f.Seeds) != 1 || f.Seeds[0] != 2 || f.Metrics[0].Values[0] != 1 {
		t.Errorf("%v, %+v", err, f)
	}
}

func recordsOf(t *testing.T, w *watched, topic string) (all []*message.Message) {
	t.Helper()
	err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Read(t.Context(), topic, bus.Range{End: 1000}, func(msg *message.Message) error {
		all = append(all, msg)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func positioned(t *testing.T, msg *message.Message) bus.Position {
	t.Helper()
	at, err := bus.PositionOf(msg)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// --dry-run says what is left to read, and writes nothing.
func TestReplayDryRun(t *testing.T) {
	w := newWatched(t)
	w.fill()
	dir := filepath.Join(t.TempDir(), "typed")
	type plan struct {
		Records int64 `json:"records_at_most"`
		Bytes   int64 `json:"bytes_estimated"`
		Needed  int64 `json:"bytes_needed"`
		Free    int64 `json:"bytes_free"`
	}
	dry := func() (p plan) {
		status, out, messages := w.replayOf("--avro", dir, "--dry-run", "--json", w.topics.SeedMetrics)
		if status != 0 {
			t.Fatal(messages)
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := dry(); p.Records != 6 || p.Bytes < 100 || p.Free <= 0 {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if status, _, messages := w.replayOf("--avro", dir, "--until=offset:4", w.topics.SeedMetrics); status != 0 {
		t.Fatal(messages)
	}
	if p := dry(); p.Records != 2 {
		t.Errorf("after a part: %+v", p)
	}
	for _, form := range [][]string{{"--archive"}, {"--archive", "--codec=deflate"}, {"--avro"}, {"--avro", "--avro-codec=null"}, {"--parquet"}} {
		into := filepath.Join(t.TempDir(), "files")
		args := append([]string{form[0], into, w.topics.SeedMetrics, "--json"}, form[1:]...)
		var p plan
		_, out, _ := w.replayOf(append(args, "--dry-run")...)
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		m := new(manifest.Manifest)
		_, out, _ = w.replayOf(args...)
		if err := json.Unmarshal([]byte(out), m); err != nil {
			t.Fatal(err)
		}
		var written int64
		for _, f := range m.Topics[0].Partitions[0].Files {
			written += f.Bytes
		}
		if p.Needed <= 0 || p.Needed > written {
			t.Errorf("%v: %d bytes are said to be needed at least, and %d were written", form, p.Needed, written)
		}
	}
	for _, action := range [][]string{{"--archive", dir + "2"}, {"--lines"}, {"--aggregate"}, {"--to-topic=x"}} {
		if status, out, messages := w.replayOf(append(action, "--dry-run", w.topics.SeedMetrics)...); status != 0 || !strings.Contains(out, "at most 6 records to read") {
			t.Errorf("%v: status %d, %q, %q", action, status, out, messages)
		}
	}
}

// A replay ends before the disk is full.
func TestSpace(t *testing.T) {
	s, err := spaceOf(filepath.Join(t.TempDir(), "not", "there"))
	if err != nil || s.free <= 0 || s.reserve <= 0 || s.reserve > spaceReserve {
		t.Fatalf("%v, %+v", err, s)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
	var none *space
	if err := none.check(); err != nil {
		t.Error(err)
	}
}

// oona watch --until ends there.
func TestWatchUntil(t *testing.T) {
	w := newWatched(t)
	w.fill()
	for until, want := range map[string]int{"now": 6, "offset:2": 2, "offset:99": 6, "1h": 0} {
		status, out, messages := run(t, "watch", w.topics.SeedMetrics, "--brokers", w.brokers, "--json", "--until", until)
		if n := strings.Count(out, "\n"); status != 0 || n != want {
			t.Errorf("until %s: status %d, %d lines, want %d: %s", until, status, n, want, messages)
		}
	}
	if status, out, _ := run(t, "watch", w.topics.SeedMetrics, "--brokers", w.brokers, "--json", "--from=1h", "--until=now", "--count=3"); status != 0 || strings.Count(out, "\n") != 3 {
		t.Errorf("of the last hour, three: status %d, %s", status, out)
	}
	if status, _, messages := run(t, "watch", "--brokers", w.brokers, "--until=now"); status != exitUsage || !strings.Contains(messages, "--until needs an address") {
		t.Errorf("without an address: status %d, %s", status, messages)
	}
}
