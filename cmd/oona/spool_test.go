package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
	"github.com/morphogenetic/oona/windows"
)

// spoolOfIngest returns a directory with a spool that is open, as if ingest were running. The spool has
// the given number of requests with the given number of frames each.
func spoolOfIngest(t *testing.T, topic string, requests, frames int) (dir string, s *spool.Queues) {
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

// queueOf returns the queue of a topic.
func queueOf(t *testing.T, s *spool.Queues, topic string) *spool.Spool {
	t.Helper()
	queue, err := s.Queue(topic)
	if err != nil {
		t.Fatal(err)
	}
	return queue
}

func appendEntry(t *testing.T, s *spool.Queues, e *entry.Entry) {
	t.Helper()
	body := entry.Append(nil, e)
	if err := queueOf(t, s, e.Topic).Append(t.Context(), forward.Keys(body), body); err != nil {
		t.Fatal(err)
	}
}

// appendEvent appends a request with an event, like one to POST /v1/events.
func appendEvent(t *testing.T, s *spool.Queues, topics oona.Topics) {
	t.Helper()
	e := &oona.SeedEvent{Run: "run-0", Layer: "enc.0", Seed: 3, Sequence: 1, At: oona.MicrosOf(time.Now()), From: oona.Dormant, To: oona.Germinated}
	m := bus.NewMessage(avro.AppendEvent(nil, e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: bus.Hash([]byte(e.Run)), Hashed: true})
	appendEntry(t, s, &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topics.Event(e), Messages: []*message.Message{m}})
}

func appendRunEnd(t *testing.T, s *spool.Queues, topics oona.Topics) {
	t.Helper()
	e := &oona.RunEnd{Run: "run-0", At: oona.MicrosOf(time.Now()), Outcome: oona.RunStopped}
	m := bus.NewMessage(avro.AppendRunEnd(nil, e), bus.Target{Key: []byte(e.Run), Partition: bus.Hash([]byte(e.Run)), Hashed: true})
	appendEntry(t, s, &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topics.RunEnded, Messages: []*message.Message{m}})
}

// contents returns the files in a directory and its subdirectories, with their bytes and times.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, name)
		all[below] = fmt.Sprint(info.ModTime(), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ls and cat show what was not sent yet, and change nothing. The spool may be in use, a file may end
// with a torn record, and the directory may be read-only.
func TestSpoolLsAndCat(t *testing.T) {
	const topic = "oona.telemetry.seed.metrics"
	dir, s := spoolOfIngest(t, topic, 12, 2)
	ls := func() (l spoolListing) {
		t.Helper()
		status, out, messages := run(t, "spool", "ls", "--json", dir)
		if err := json.Unmarshal([]byte(out), &l); status != 0 || err != nil {
			t.Fatalf("ls ends with status %d, want 0 and a listing (%v): %s%s", status, err, out, messages)
		}
		return l
	}
	cat := func(args ...string) (lines []map[string]any) {
		t.Helper()
		status, out, messages := run(t, append([]string{"spool", "cat", dir}, args...)...)
		if status != 0 {
			t.Fatalf("cat ends with status %d: %s%s", status, out, messages)
		}
		for text := range strings.Lines(out) {
			var line map[string]any
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("a line of cat is not JSON: %v: %s", err, text)
			}
			lines = append(lines, line)
		}
		return lines
	}
	l := ls()
	metrics := l.Files[0].Name // the file of the frames
	if !l.InUse || l.Requests != 12 || l.Frames != 24 || len(l.Files) != 1 || l.Files[0].Requests != 12 || l.Files[0].Frames != 24 || len(l.Layers) != 3 || l.Layers[0].Frames != 8 || l.Layers[0].Run != "run-0" || l.Layers[0].From == nil {
		t.Errorf("ls prints %+v, want twelve requests of two frames in one file", l)
	}
	lines := cat()
	if len(lines) != 24 || lines[0]["kind"] != "frame" || lines[0]["path"] != "ingest-7" || lines[23]["offset"] != 11.0 {
		t.Errorf("cat prints %d lines, want 24, and the first one is %v", len(lines), lines[0])
	}
	if n := len(cat("--run=run-1")); n != 8 {
		t.Errorf("cat prints %d frames of run-1, want 8", n)
	}
	if n := len(cat("--limit=5")); n != 5 {
		t.Errorf("cat prints %d frames with --limit=5", n)
	}
	if _, out, _ := run(t, "spool", "ls", dir); !strings.Contains(out, "run-2/enc.0") || !strings.Contains(out, "8 frames") {
		t.Errorf("ls prints no line of the 8 frames of run-2:\n%s", out)
	}
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	appendEvent(t, s, topics)
	if l := ls(); l.Requests != 13 || l.Frames != 24 || l.Events != 1 || len(l.Layers) != 4 {
		t.Errorf("after an event was appended, ls prints %+v", l)
	} else if i := slices.IndexFunc(l.Layers, func(of *spoolLayer) bool { return of.Events == 1 }); i < 0 || l.Layers[i].From == nil || !l.Layers[i].From.Equal(*l.Layers[i].Until) {
		t.Errorf("the time of an event is not listed: %+v", l.Layers)
	}
	appendRunEnd(t, s, topics)
	if l := ls(); !slices.ContainsFunc(l.Layers, func(of *spoolLayer) bool {
		return of.Topic == topics.RunEnded && of.Run == "run-0" && of.Layer == "" && of.Events == 1 && of.From != nil
	}) {
		t.Errorf("the end of a run is not listed: %+v", l.Layers)
	}
	if lines := cat("--run=run-0"); len(lines) != 10 || !slices.ContainsFunc(lines, func(line map[string]any) bool { return line["kind"] == "event" }) {
		t.Errorf("cat prints these lines of a run with eight frames and an event: %v", lines)
	}
	before := contents(t, dir)
	ls()
	cat()
	if after := contents(t, dir); len(after) != len(before) || after[metrics] != before[metrics] {
		t.Error("ls or cat has changed the directory of a spool that is in use")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, metrics)
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
	torn := func(f spoolFile) bool { return f.Name == metrics && f.Torn == 4 }
	if l := ls(); l.InUse || l.Frames != 24 || l.Events != 2 || !slices.ContainsFunc(l.Files, torn) || l.Lost != 0 {
		t.Errorf("with a torn record at the end of a file, ls prints %+v", l)
	}
	if n := len(cat()); n != 26 {
		t.Errorf("cat prints %d lines of a spool with a torn record at the end, want 26", n)
	}
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Error("ls or cat has changed a directory that cannot be written")
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

// A directory that does not exist is an error, and no command makes it.
func TestSpoolElsewhere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nowhere")
	for _, command := range []string{"ls", "cat", "drain"} {
		if status, _, _ := run(t, "spool", command, missing); status != exitFailed {
			t.Errorf("oona spool %s of a directory that does not exist ends with status %d, want %d", command, status, exitFailed)
		}
		if _, err := os.Stat(missing); err == nil {
			t.Fatalf("oona spool %s has made the directory", command)
		}
	}
}

// ls and cat print no note about a spool from which everything was sent.
func TestSpoolThatIsEmpty(t *testing.T) {
	empty := t.TempDir()
	s, err := spool.OpenQueues(empty, spool.Options{MaxBytes: 1 << 20, SegmentBytes: 1 << 16, RecordBytes: 1 << 10, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"ls", "cat"} {
		if status, _, messages := run(t, "spool", command, empty); status != 0 || messages != "" {
			t.Errorf("%s of an empty spool ends with status %d and says %s", command, status, messages)
		}
	}
}

// The commands refuse a directory that is not a spool, and do not change it. Otherwise a wrong
// directory would look like a spool from which everything was sent.
func TestSpoolOfAnotherDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	for _, command := range [][]string{{"ls"}, {"ls", "--json"}, {"cat"}, {"cat", "--set-aside"}, {"drain", "--yes"}, {"drain", "--dry-run"}} {
		status, out, messages := run(t, append(append([]string{"spool"}, command...), dir)...)
		if status != exitFailed || out != "" || !strings.Contains(messages, errNoSpool.Error()) {
			t.Errorf("%s ends with status %d, want %d and an error that says why: %s%s", command, status, exitFailed, out, messages)
		}
	}
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Errorf("the commands have changed the directory: it has %v", after)
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

// A drain sends what was not sent yet, in order and with a path of its own. It refuses a spool that an
// ingest uses. What was sent is not sent again.
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
			t.Fatalf("a drain with %v ends with status %d, want %d: %s%s", args, got, status, out, messages)
		}
		return out + messages
	}
	if text := drain(exitFailed, "--yes"); !strings.Contains(text, spool.ErrLocked.Error()) || !strings.Contains(text, errIngestRuns.Error()) {
		t.Errorf("a drain of a spool that is in use does not say so, or does not say what to do: %s", text)
	}
	// Without a topic nothing could be sent, and the dry run says so.
	if text := drain(exitFailed, "--dry-run"); !strings.Contains(text, errIncompleteDryRun.Error()) || strings.Contains(text, errIncompleteSpool.Error()) {
		t.Errorf("a dry run without a topic says: %s", text)
	}
	if _, err := b.Apply(t.Context(), append(topics.Specs(2), topics.EventSpecs(2)...)); err != nil {
		t.Fatal(err)
	}
	drain(0, "--dry-run") // the spool is in use
	frames := queueOf(t, s, topics.SeedMetrics)
	r, err := frames.Next(t.Context())
	if err := errors.Join(err, frames.Done(r.Sequence)); err != nil { // ingest has sent the first request
		t.Fatal(err)
	}
	large := bus.NewMessage(make([]byte, oona.MaxSideBytes), bus.Target{Key: oona.Key("run-0", "enc.0")})
	appendEntry(t, s, &entry.Entry{Topic: topics.SeedMetrics, Messages: []*message.Message{large}})
	appendEvent(t, s, topics)
	if err := frames.Append(t.Context(), nil, []byte("not a request")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if text := drain(exitFailed, "--dry-run", "--json"); !strings.Contains(text, `"set_aside": 1,`) { // the record that is not a request
		t.Errorf("a dry run does not say that a record would be set aside: %s", text)
	}
	drain(exitFailed) // nobody confirms
	if after := contents(t, dir); !mapsEqual(before, after) {
		t.Error("a drain that sends nothing has changed the directory")
	}
	if got, _ := drained(t, b, topics.SeedMetrics); len(got) != 0 {
		t.Fatalf("a drain that was not confirmed has sent %v", got)
	}
	var report drainReport
	text := drain(exitFailed, "--yes", "--json") // two records are set aside
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&report); err != nil {
		t.Fatalf("the report of the drain is not JSON: %v: %s", err, text)
	}
	if report.Requests != 30 || report.Topics[topics.SeedMetrics] != 58 || report.Topics[topics.Germinated] != 1 || report.Aside != 2 || report.Left != 0 || report.Lost != 0 {
		t.Errorf("the report is %+v, want 30 requests that were sent and 2 that were set aside", report)
	}
	got, paths := drained(t, b, topics.SeedMetrics)
	for run, first := range map[oona.RunID]int64{"run-0": 2, "run-1": 0, "run-2": 0} {
		if n := len(got[run]); int64(n) != 20-first || got[run][0] != first || !slices.IsSorted(got[run]) {
			t.Errorf("the bus has the frames %v of %s, want those from %d to 19 in order", got[run], run, first)
		}
	}
	if len(paths) != 1 || paths[0] != "spool/ingest-7" {
		t.Errorf("the drained frames have the paths %v, want spool/ingest-7", paths)
	}
	if text := drain(0, "--yes"); !strings.Contains(text, "nothing to send") {
		t.Errorf("the second drain does not say that it has nothing to send: %s", text)
	}
	if again, _ := drained(t, b, topics.SeedMetrics); len(again["run-1"]) != 20 {
		t.Errorf("after the second drain the bus has %v", again)
	}
	if status, out, messages := run(t, "spool", "cat", "--set-aside", dir); status != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(messages, "1 record ") {
		t.Errorf("cat --set-aside ends with status %d and prints %.200s%s, want one frame and a note about one record that is not a request", status, out, messages)
	}
	if status, out, _ := run(t, "spool", "ls", dir); status != 0 || strings.Count(out, "set aside") != 2 {
		t.Errorf("ls ends with status %d and does not list two requests that were set aside: %s", status, out)
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
	dir, s := spoolOfIngest(t, topics.SeedMetrics, 60, 500) // enough for several batches
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		// The drain is interrupted when the bus has a batch and nothing more arrives during many polls.
		// Without the rate, more would arrive.
		end, looks := int64(0), 0
		for ctx.Err() == nil {
			extents, err := b.Extents(ctx, topics.SeedMetrics)
			if err != nil {
				continue
			}
			if now := extents[topics.SeedMetrics][0].End; now == 0 || now != end {
				end, looks = now, 0
			} else if looks++; looks == 50 {
				cancel()
			}
		}
	}()
	var out, messages strings.Builder
	args := slices.Concat([]string{"spool", "drain", dir, "--yes", "--json", "--rate=1KiB"}, at) // at this rate, the second batch waits for minutes
	if status := newGrammar().execute(ctx, args, streams{strings.NewReader(""), &out, &messages}); status != exitInterrupted {
		t.Fatalf("the interrupted drain ends with status %d, want %d: %s%s", status, exitInterrupted, &out, &messages)
	}
	var first, second drainReport
	if err := json.Unmarshal([]byte(out.String()), &first); err != nil {
		t.Fatal(err)
	}
	status, text, more := run(t, slices.Concat([]string{"spool", "drain", dir, "--yes", "--json", "--rate=0"}, at)...)
	if err := json.Unmarshal([]byte(text), &second); status != 0 || err != nil {
		t.Fatalf("the drain after it ends with status %d, want 0 and a report (%v): %s%s", status, err, text, more)
	}
	if first.Bytes > 1<<20 { // the size of a batch
		t.Errorf("at 1 KiB per second, %d bytes were sent at once", first.Bytes)
	}
	if first.Requests == 0 || first.Left == 0 || first.Requests+second.Requests != 60 {
		t.Errorf("the interrupted drain reports %+v and the one after it %+v, want 60 requests together", first, second)
	}
	got, _ := drained(t, b, topics.SeedMetrics)
	next := int64(0)
	for _, sequence := range got["run-0"] {
		if sequence > next {
			t.Fatalf("the bus has frame %d before frame %d", sequence, next)
		}
		next = max(next, sequence+1)
	}
	if next != 10_000 {
		t.Errorf("the bus has the first %d frames of run-0, want 10000", next)
	}
}

// Requests for a topic that does not exist stay in the spool, and a drain sends all others. The drain
// fails, and says which topic it is, how many requests stay, and what to do.
func TestSpoolDrainWithoutATopic(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	topics, err := oona.NewTopics("without")
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	dir, s := spoolOfIngest(t, topics.SeedMetrics, 6, 2)
	for range 3 {
		appendEvent(t, s, topics)
	}
	appendRunEnd(t, s, topics)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	drain := func(status int, args ...string) (report drainReport, messages string) {
		t.Helper()
		got, out, messages := run(t, slices.Concat([]string{"spool", "drain", dir, "--json"}, args, at)...)
		if got != status {
			t.Fatalf("a drain with %v ends with status %d, want %d: %s%s", args, got, status, out, messages)
		}
		if out != "" {
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatal(err)
			}
		}
		return report, messages
	}
	if report, messages := drain(exitFailed, "--yes"); report.Left != 10 || !strings.Contains(messages, topics.SeedMetrics) || !strings.Contains(messages, topics.Germinated) {
		t.Errorf("without any topic the drain reports %+v and prints %s", report, messages)
	}
	if _, err := b.Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	for i, mode := range []string{"--dry-run", "--yes", "--yes"} {
		report, messages := drain(exitFailed, mode)
		requests := int64(6)
		if i == 2 { // the drain before has sent the rest
			requests = 0
		}
		if report.Unusable[topics.Germinated] != 3 || report.Unusable[topics.RunEnded] != 1 || report.Left != 4 || report.Requests != requests || report.Topics[topics.Germinated] != 0 {
			t.Errorf("a drain with %s reports %+v", mode, report)
		}
		if !strings.Contains(messages, "3 requests for the topic "+topics.Germinated) || !strings.Contains(messages, "oona topics apply") {
			t.Errorf("a drain with %s does not say what stays and what to do: %s", mode, messages)
		}
	}
	if got, _ := drained(t, b, topics.SeedMetrics); len(got["run-0"]) != 4 || len(got["run-2"]) != 4 {
		t.Errorf("the bus has %v", got)
	}
	if _, err := b.Apply(t.Context(), topics.EventSpecs(2)); err != nil {
		t.Fatal(err)
	}
	if report, _ := drain(0, "--yes"); report.Requests != 4 || report.Topics[topics.Germinated] != 3 || report.Topics[topics.RunEnded] != 1 || report.Left != 0 {
		t.Errorf("when the topic exists, a drain reports %+v", report)
	}
}

// A drain says which frames are too old for the windows, if the limits of the windows are known.
func TestSpoolDrainOfOldFrames(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	topics, err := oona.NewTopics("old")
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	if _, err := b.Apply(t.Context(), append(topics.Specs(1), topics.SettingsSpec())); err != nil {
		t.Fatal(err)
	}
	limits := windows.DefaultConfig()
	limits.Generation = 1
	written := settings.WindowsEntry(0, windows.Configuration{Config: limits}.Record())
	if err := settings.Write(t.Context(), b, topics, written); err != nil {
		t.Fatal(err)
	}
	dir, s := spoolOfIngest(t, topics.SeedMetrics, 0, 0)
	for i, age := range []time.Duration{time.Minute, limits.MaxDelay + time.Hour, limits.MaxDelay + 2*time.Hour} {
		f := watchedFrame("aged", "enc.0", int64(i))
		f.ObservedAt = oona.MicrosOf(time.Now().Add(-age))
		m := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
		appendEntry(t, s, &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topics.SeedMetrics, Messages: []*message.Message{m}})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"--dry-run", "--yes"} {
		status, out, messages := run(t, slices.Concat([]string{"spool", "drain", dir, "--json", mode}, at)...)
		var report drainReport
		if err := json.Unmarshal([]byte(out), &report); status != 0 || err != nil || report.Stale["aged"] != 2 {
			t.Errorf("a drain with %s ends with status %d and reports %+v (%v)", mode, status, report, err)
		}
		if !strings.Contains(messages, "2 frames of run aged") {
			t.Errorf("a drain with %s does not say how many frames are too old: %s", mode, messages)
		}
	}
}
