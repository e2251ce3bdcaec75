package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// spoolOfIngest returns a directory with a spool, open as ingest has it, with requests of
// some frames each.
func spoolOfIngest(t *testing.T, topic string, requests, frames int) (dir string, s *spool.Spool) {
	t.Helper()
	cfg := ingest.DefaultConfig()
	dir = t.TempDir()
	cfg.Spool.Directory, cfg.Spool.Headroom = dir, 0
	s, err := cfg.OpenSpool(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for i := range requests {
		var messages []*message.Message
		for n := range frames {
			f := watchedFrame(oona.RunID(fmt.Sprintf("run-%d", i%3)), "enc.0", int64(frames*(i/3)+n))
			m := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
			m.Metadata.Set(oona.HeaderPath, "ingest-7")
			messages = append(messages, m)
		}
		appendEntry(t, s, &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topic, Messages: messages})
	}
	return dir, s
}

func appendEntry(t *testing.T, s *spool.Spool, e *entry.Entry) {
	t.Helper()
	body := entry.Append(nil, e)
	if err := s.Append(t.Context(), forward.Keys(body), body); err != nil {
		t.Fatal(err)
	}
}

// appendEvent appends a request with an event, as of POST /v1/events.
func appendEvent(t *testing.T, s *spool.Spool, topics oona.Topics) {
	t.Helper()
	e := &oona.SeedEvent{Run: "run-0", Layer: "enc.0", Seed: 3, Sequence: 1, At: oona.MicrosOf(time.Now()), From: oona.Dormant, To: oona.Germinated}
	m := bus.NewMessage(avro.AppendEvent(nil, e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: bus.Hash([]byte(e.Run)), Hashed: true})
	appendEntry(t, s, &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topics.Event(e), Messages: []*message.Message{m}})
}

// contents returns the files of a directory with their bytes and times.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		text, errRead := os.ReadFile(filepath.Join(dir, e.Name()))
		info, errInfo := e.Info()
		if err = errors.Join(err, errRead, errInfo); err == nil {
			all[e.Name()] = fmt.Sprint(info.ModTime(), string(text))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ls and cat show what is left, also of a spool that is in use, with an unclean tail and in
// a directory that cannot be written, and change nothing.
func TestSpoolLsAndCat(t *testing.T) {
	const topic = "oona.telemetry.seed.metrics"
	dir, s := spoolOfIngest(t, topic, 12, 2)
	ls := func() (l spoolListing) {
		t.Helper()
		status, out, messages := run(t, "spool", "ls", "--json", dir)
		if err := json.Unmarshal([]byte(out), &l); status != 0 || err != nil {
			t.Fatalf("status %d, %v: %s%s", status, err, out, messages)
		}
		return l
	}
	cat := func(args ...string) (lines []map[string]any) {
		t.Helper()
		status, out, messages := run(t, append([]string{"spool", "cat", dir}, args...)...)
		if status != 0 {
			t.Fatalf("status %d: %s%s", status, out, messages)
		}
		for text := range strings.Lines(out) {
			var line map[string]any
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			lines = append(lines, line)
		}
		return lines
	}
	l := ls()
	if !l.InUse || l.Requests != 12 || l.Frames != 24 || len(l.Files) != 1 || l.Files[0].Requests != 12 || l.Files[0].Frames != 24 || len(l.Layers) != 3 || l.Layers[0].Frames != 8 || l.Layers[0].Run != "run-0" || l.Layers[0].From == nil {
		t.Errorf("%+v", l)
	}
	lines := cat()
	if len(lines) != 24 || lines[0]["kind"] != "frame" || lines[0]["path"] != "ingest-7" || lines[23]["offset"] != 11.0 {
		t.Errorf("%d lines, the first is %v", len(lines), lines[0])
	}
	if n := len(cat("--run=run-1")); n != 8 {
		t.Errorf("%d frames of a run", n)
	}
	if n := len(cat("--limit=5")); n != 5 {
		t.Errorf("%d frames with a limit of 5", n)
	}
	if _, out, _ := run(t, "spool", "ls", dir); !strings.Contains(out, "run-2/enc.0") || !strings.Contains(out, "8 frames") {
		t.Errorf("%s", out)
	}
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	appendEvent(t, s, topics)
	if l := ls(); l.Requests != 13 || l.Frames != 24 || l.Events != 1 || len(l.Layers) != 4 {
		t.Errorf("with an event: %+v", l)
	}
	if lines := cat("--run=run-0"); len(lines) != 9 || lines[8]["kind"] != "event" {
		t.Errorf("%v", lines)
	}
	before := contents(t, dir)
	ls()
	cat()
	if after := contents(t, dir); len(after) != len(before) || after[l.Files[0].Name] != before[l.Files[0].Name] {
		t.Error("the directory has changed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, l.Files[0].Name)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("torn"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Close(), os.Chmod(dir, 0o500)); err != nil {
		t.Fatal(err)
	}
	before = contents(t, dir)
	if l := ls(); l.InUse || l.Frames != 24 || l.Events != 1 || l.Files[0].Torn != 4 || l.Lost != 0 {
		t.Errorf("%+v", l)
	}
	if n := len(cat()); n != 25 {
		t.Errorf("%d lines of a spool with a torn end", n)
	}
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Error("the directory has changed")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func mapsEqual(a, b map[string]string) bool {
	for name, text := range a {
		if b[name] != text {
			return false
		}
	}
	return len(a) == len(b)
}

// A directory without a spool is a mistake of the user.
func TestSpoolElsewhere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nowhere")
	for _, command := range []string{"ls", "cat", "drain"} {
		if status, _, _ := run(t, "spool", command, missing); status != exitFailed {
			t.Errorf("%s: status %d", command, status)
		}
		if _, err := os.Stat(missing); err == nil {
			t.Fatalf("%s has made the directory", command)
		}
	}
}

// A drain of a directory that is no spool fails and leaves it as it is. Otherwise a wrong
// directory would look like a spool that was sent.
func TestSpoolDrainOfAnotherDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	for _, option := range []string{"--yes", "--dry-run"} {
		status, out, messages := run(t, "spool", "drain", option, dir)
		if status != exitFailed || !strings.Contains(messages, errNoSpool.Error()) {
			t.Errorf("%s: status %d: %s%s", option, status, out, messages)
		}
	}
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Errorf("the directory has %v", after)
	}
}

// drained returns the sequence numbers of each run on the bus, in order, and the paths.
func drained(t *testing.T, b bus.Bus, topic string) (sequences map[oona.RunID][]int64, paths []string) {
	t.Helper()
	sequences = make(map[oona.RunID][]int64)
	extents, err := b.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for partition, extent := range extents[topic] {
		err := b.Read(t.Context(), topic, bus.Range{Partition: int32(partition), From: extent.Start, End: extent.End}, func(m *message.Message) error {
			var d avro.FrameDecoder
			var f oona.Frame
			_, err := d.Decode(m.Payload, &f)
			sequences[f.Run] = append(sequences[f.Run], f.Sequence)
			if path := m.Metadata.Get(oona.HeaderPath); !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sequences, paths
}

// drain sends what is left, in order and over a path of its own, and not while an ingest has
// the spool. What was sent is not sent again.
func TestSpoolDrain(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	topics, err := oona.NewTopics("drained")
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	dir, s := spoolOfIngest(t, topics.SeedMetrics, 30, 2)
	drain := func(status int, args ...string) string {
		t.Helper()
		got, out, messages := run(t, slices.Concat([]string{"spool", "drain", dir}, args, at)...)
		if got != status {
			t.Fatalf("%v: status %d, want %d: %s%s", args, got, status, out, messages)
		}
		return out + messages
	}
	if text := drain(exitFailed, "--yes"); !strings.Contains(text, spool.ErrLocked.Error()) {
		t.Error(text)
	}
	drain(exitFailed, "--dry-run") // there is no topic
	if _, err := b.Apply(t.Context(), append(topics.Specs(2), topics.EventSpecs(2)...)); err != nil {
		t.Fatal(err)
	}
	drain(0, "--dry-run") // the spool is in use
	r, err := s.Next(t.Context())
	if err := errors.Join(err, s.Done(r.Sequence)); err != nil { // ingest has sent the first request
		t.Fatal(err)
	}
	large := bus.NewMessage(make([]byte, oona.MaxSideBytes), bus.Target{Key: oona.Key("run-0", "enc.0")})
	appendEntry(t, s, &entry.Entry{Topic: topics.SeedMetrics, Messages: []*message.Message{large}})
	appendEvent(t, s, topics)
	if err := s.Append(t.Context(), nil, []byte("no request")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	drain(0, "--dry-run")
	drain(exitFailed) // nobody confirms
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Error("the directory has changed")
	}
	if got, _ := drained(t, b, topics.SeedMetrics); len(got) != 0 {
		t.Fatalf("the bus has %v", got)
	}
	var report drainReport
	text := drain(exitFailed, "--yes", "--json") // two records are set aside
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&report); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if report.Requests != 30 || report.Topics[topics.SeedMetrics] != 58 || report.Topics[topics.Germinated] != 1 || report.Aside != 2 || report.Left != 0 || report.Lost != 0 {
		t.Errorf("%+v", report)
	}
	got, paths := drained(t, b, topics.SeedMetrics)
	for run, first := range map[oona.RunID]int64{"run-0": 2, "run-1": 0, "run-2": 0} {
		if n := len(got[run]); int64(n) != 20-first || got[run][0] != first || !slices.IsSorted(got[run]) {
			t.Errorf("%s: %v", run, got[run])
		}
	}
	if len(paths) != 1 || paths[0] != "spool/ingest-7" {
		t.Errorf("the paths are %v", paths)
	}
	if text := drain(0, "--yes"); !strings.Contains(text, "nothing to send") {
		t.Error(text)
	}
	if again, _ := drained(t, b, topics.SeedMetrics); len(again["run-1"]) != 20 {
		t.Errorf("the bus has %v", again)
	}
	if status, out, messages := run(t, "spool", "cat", "--set-aside", dir); status != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(messages, "1 record ") {
		t.Errorf("status %d: %.200s%s", status, out, messages)
	}
	if status, out, _ := run(t, "spool", "ls", dir); status != 0 || strings.Count(out, "set aside") != 2 {
		t.Errorf("status %d: %s", status, out)
	}
}

// A drain that was interrupted continues with the first request that the bus does not have.
func TestSpoolDrainIsInterrupted(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	if _, err := b.Apply(t.Context(), topics.Specs(1)); err != nil {
		t.Fatal(err)
	}
	dir, s := spoolOfIngest(t, topics.SeedMetrics, 60, 500) // some batches
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if extents, err := b.Extents(ctx, topics.SeedMetrics); err == nil && extents[topics.SeedMetrics][0].End > 0 {
				cancel()
			}
		}
	}()
	var out, messages strings.Builder
	args := slices.Concat([]string{"spool", "drain", dir, "--yes", "--json", "--rate=2MiB"}, at)
	if status := newGrammar().execute(ctx, args, streams{strings.NewReader(""), &out, &messages}); status != exitInterrupted {
		t.Fatalf("status %d: %s%s", status, &out, &messages)
	}
	var first, second drainReport
	if err := json.Unmarshal([]byte(out.String()), &first); err != nil {
		t.Fatal(err)
	}
	status, text, more := run(t, slices.Concat([]string{"spool", "drain", dir, "--yes", "--json", "--rate=0"}, at)...)
	if err := json.Unmarshal([]byte(text), &second); status != 0 || err != nil {
		t.Fatalf("status %d, %v: %s%s", status, err, text, more)
	}
	if first.Requests == 0 || first.Left == 0 || first.Requests+second.Requests != 60 {
		t.Errorf("%+v, then %+v", first, second)
	}
	got, _ := drained(t, b, topics.SeedMetrics)
	next := int64(0)
	for _, sequence := range got["run-0"] {
		if sequence > next {
			t.Fatalf("frame %d comes before frame %d", sequence, next)
		}
		next = max(next, sequence+1)
	}
	if next != 10_000 {
		t.Errorf("%d frames of a run are on the bus", next)
	}
}
