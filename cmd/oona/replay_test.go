package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

const replayedPartitions = 2

// replays runs oona replay on the installation, without a transcript.
func (i *installation) replays(args ...string) (status int, out, messages string) {
	i.t.Helper()
	return run(i.t, append([]string{"replay"}, append(args, "--brokers", strings.Join(i.cfg.Brokers, ","), "--prefix", i.group, "--group", i.group)...)...)
}

// replaysOffline runs oona replay without a bus.
func (i *installation) replaysOffline(args ...string) (status int, out, messages string) {
	i.t.Helper()
	return run(i.t, append([]string{"replay"}, append(args, "--brokers", "127.0.0.1:1", "--prefix", i.group)...)...)
}

// must runs oona replay, which must succeed, and returns its output.
func (i *installation) must(args ...string) string {
	i.t.Helper()
	status, out, messages := i.replays(args...)
	if status != 0 {
		i.t.Fatalf("replay %v: status %d, %q, %q", args, status, out, messages)
	}
	return out
}

// refused runs oona replay, which must fail and say something.
func (i *installation) refused(want int, says string, args ...string) {
	i.t.Helper()
	status, out, messages := i.replays(args...)
	if status != want || !strings.Contains(messages, says) {
		i.t.Errorf("replay %v: status %d, %q, %q; want %d and %q", args, status, out, messages, want, says)
	}
}

// record writes frames of four layers, one each at a time, until a function says that they
// are enough.
func (i *installation) record(more func(step int) (at time.Time, goOn bool)) {
	i.t.Helper()
	publisher, err := kafka.New(i.cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	for step := 0; ; step++ {
		at, goOn := more(step)
		if !goOn {
			break
		}
		var all []*message.Message
		for layer := range 4 {
			f := &oona.Frame{
				Run: "replayed", Layer: oona.LayerID(fmt.Sprintf("enc.%d", layer)), Producer: oona.ProducerID(fmt.Sprintf("rank.%d", layer)), Epoch: 1, Sequence: int64(step + 1),
				ObservedAt: oona.MicrosOf(at), Step: int64(step), Seeds: []oona.SeedID{1, 2}, States: []oona.State{oona.Training, oona.Dormant},
				Metrics: []oona.Column{{Name: "gradient_norm", Values: []float32{float32(step), 1}}},
			}
			msg := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
			msg.Metadata.Set(oona.HeaderPath, "ingest-0")
			all = append(all, msg)
		}
		if err := publisher.Publish(i.t.Context(), i.topics.SeedMetrics, all...); err != nil {
			i.t.Fatal(err)
		}
	}
	if err := publisher.Close(); err != nil {
		i.t.Fatal(err)
	}
}

// recordMinutes writes frames of some minutes that have passed already, all at once. They
// count from the same time in each call of a test, and it returns that time.
func (i *installation) recordMinutes(from, to int) (begin time.Time) {
	i.t.Helper()
	if i.begin.IsZero() {
		i.begin = time.Now().Truncate(time.Minute).Add(-2 * time.Hour)
	}
	i.record(func(step int) (time.Time, bool) {
		at := time.Duration(from)*time.Minute + time.Duration(step)*5*time.Second
		return i.begin.Add(at), at < time.Duration(to)*time.Minute
	})
	return i.begin
}

// aggregateAll runs an aggregator until it has committed that it has read everything.
func (i *installation) aggregateAll() {
	i.t.Helper()
	logger, at := slog.New(slog.DiscardHandler), kafka.New(i.cfg, nil)
	publisher, err := at.Publisher(bus.RollupOptions())
	if err != nil {
		i.t.Fatal(err)
	}
	own, err := catalogue.Default()
	if err != nil {
		i.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(i.t.Context())
	defer cancel()
	stage, err := aggregate.New(aggregate.Config{Worker: "w", Topics: i.topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits, Log: settings.Log{Bus: at, Topics: i.topics, Worker: "w"}},
		settings.NewCatalogues(at, i.topics, logger).ForWindows(ctx, own), publisher, prometheus.NewRegistry(), logger)
	if err != nil {
		i.t.Fatal(err)
	}
	member, err := at.Member(bus.MemberOptions{Group: i.group, CommitEvery: 50 * time.Millisecond}, stage)
	if err != nil {
		i.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, member) }()
	until := i.heldOf(i.topics.SeedMetrics)
	await(i.t, "commits", func() bool { return committedTo(i.t, at, i.group, i.topics.SeedMetrics, until) })
	cancel()
	if err := errors.Join(<-ended, member.Close(), publisher.Close()); err != nil && !errors.Is(err, context.Canceled) {
		i.t.Fatal(err)
	}
}

// committedTo reports whether an aggregator has committed that it has read all partitions to
// their ends.
func committedTo(t *testing.T, b bus.Bus, group, topic string, until []bus.Extent) bool {
	t.Helper()
	commits, err := b.Commits(t.Context(), group, topic)
	if err != nil {
		t.Fatal(err)
	}
	for p, c := range commits {
		if c.Offset == bus.NoOffset {
			return false
		}
		_, commit, err := aggregate.ParseCommit(c)
		if err != nil {
			t.Fatal(err)
		}
		if reached, err := commit.Reached(); err != nil || reached.ProcessedTo < until[p].End {
			return false
		}
	}
	return true
}

func (i *installation) heldOf(topic string) []bus.Extent {
	i.t.Helper()
	extents, err := kafka.New(i.cfg, nil).Extents(i.t.Context(), topic)
	if err != nil {
		i.t.Fatal(err)
	}
	return extents[topic]
}

func (i *installation) applyTopics(more ...string) {
	i.t.Helper()
	args := append([]string{"topics", "apply", "--partitions", fmt.Sprint(replayedPartitions), "--brokers", strings.Join(i.cfg.Brokers, ","), "--prefix", i.group}, more...)
	if status, _, messages := run(i.t, args...); status != 0 {
		i.t.Fatalf("topics apply: %q", messages)
	}
}

// foldedAgain is the output of oona replay --aggregate --json.
type foldedAgain struct {
	Frames      int64
	Quarantined int64
	Undecoded   int64
	Rollups     int64
	Comparison  *replay.Comparison
	Since       []struct {
		Partition int32
		Window    time.Time
	}
}

func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// allSame checks the output of an aggregation without differences.
func allSame(t *testing.T, out string) foldedAgain {
	t.Helper()
	f := parse[foldedAgain](t, out)
	if c := f.Comparison; c == nil || c.Same == 0 || !c.Equal() || c.Pending != 0 || c.Unanswered != 0 || c.Same != f.Rollups {
		t.Errorf("the rollups differ: %s", out)
	}
	return f
}

// An archive, its continuation, its verification, and its rollups without a bus.
func TestReplayArchive(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 8)
		i.aggregateAll()
		allSame(t, i.must("--aggregate", "--json"))

		dir := filepath.Join(t.TempDir(), "run")
		begin := i.must("--archive", dir, "--file-size", "8KiB", "--json")
		m := parse[*manifest.Manifest](t, begin)
		if len(m.Topics) != 3 || len(m.Topic(i.topics.SeedMetrics).Partitions) != replayedPartitions || !m.Snapshots {
			t.Fatalf("the manifest is %s", begin)
		}
		i.verified(dir, m)
		i.recordMinutes(8, 12)
		i.aggregateAll()
		longer := parse[*manifest.Manifest](t, i.must("--archive", dir, "--file-size", "8KiB", "--json"))
		for p, held := range i.heldOf(i.topics.SeedMetrics) {
			if got := longer.Topic(i.topics.SeedMetrics).Partitions[p]; got.End != held.End || len(got.Files) < 3 || got.From != 0 {
				t.Errorf("partition %d is continued to %+v, and the log ends at %d", p, got, held.End)
			}
		}
		i.verified(dir, longer)
		status, out, messages := i.replaysOffline(dir, "--aggregate", "--json")
		if status != 0 {
			t.Fatalf("without a bus: status %d, %q", status, messages)
		}
		allSame(t, out)

		part := filepath.Join(t.TempDir(), "part")
		if status, _, messages := i.replaysOffline(dir, "--archive", part, "--from", "offset:60"); status != 0 {
			t.Fatalf("an archive of the archive: status %d, %q", status, messages)
		}
		if status, _, messages := i.replaysOffline("verify", part, "--offline"); status != 0 {
			t.Errorf("an archive of the archive: status %d, %q", status, messages)
		}
		status, out, messages = i.replaysOffline(part, "--aggregate", "--json")
		if f := parse[foldedAgain](t, out); status != 0 || f.Comparison.Same == 0 || !f.Comparison.Equal() || f.Frames == 0 {
			t.Errorf("an archive of the archive: status %d, %q, %q", status, out, messages)
		}
		i.ranges(dir)
		i.otherOptions(dir)
		i.changedRollup(dir)
	})
}

// verified verifies an archive, with the bus.
func (i *installation) verified(dir string, m *manifest.Manifest) {
	i.t.Helper()
	var files int
	var records int64
	for _, topic := range m.Topics {
		for _, p := range topic.Partitions {
			for _, f := range p.Files {
				files, records = files+1, records+f.Records
			}
		}
	}
	v := parse[replay.Verified](i.t, i.must("verify", dir, "--json"))
	if v.Files != files || v.Records != records || v.Compared != records || len(v.Faults) != 0 || records == 0 {
		i.t.Errorf("verified %+v, and the manifest has %d records in %d files", v, records, files)
	}
}

// ranges archives ranges by offset, time and duration, and partitions.
func (i *installation) ranges(dir string) {
	i.t.Helper()
	first := parse[*manifest.Manifest](i.t, i.must("--archive", filepath.Join(i.t.TempDir(), "a"), "--json", "--from", "offset:40", "--until", "offset:50", "--partition", "1", i.topics.SeedMetrics))
	if p := first.Topics[0].Partitions; len(first.Topics) != 1 || p[1].Asked != 40 || p[1].End != 50 || p[1].From > 40 || len(p[0].Files) != 0 {
		i.t.Errorf("by offset: %+v", first.Topics)
	}
	recent := parse[*manifest.Manifest](i.t, i.must("--archive", filepath.Join(i.t.TempDir(), "b"), "--json", "--from", "1h", "--until", "0s", "--no-snapshot", i.topics.SeedMetrics))
	all := parse[*manifest.Manifest](i.t, i.must("--archive", filepath.Join(i.t.TempDir(), "c"), "--json", "--no-snapshot", i.topics.SeedMetrics))
	if fmt.Sprint(recent.Topics[0].Partitions) != fmt.Sprint(all.Topics[0].Partitions) {
		i.t.Errorf("the last hour is %+v, and all is %+v", recent.Topics, all.Topics)
	}
	// The second part of the archive begins with a file, so its time is known.
	files := parse[*manifest.Manifest](i.t, readFile(i.t, filepath.Join(dir, manifest.Name))).Topic(i.topics.SeedMetrics).Partitions[0].Files
	last := files[len(files)-1]
	at := oona.Micros(last.Latest).Time().UTC().Format(time.RFC3339Nano)
	asked := func(source string) int64 {
		i.t.Helper()
		m := parse[*manifest.Manifest](i.t, i.must("--archive", filepath.Join(i.t.TempDir(), "d"), "--json", "--no-snapshot", "--partition=0", "--from", at, source))
		return m.Topic(i.topics.SeedMetrics).Partitions[0].Asked
	}
	if offset, kept := asked(i.topics.SeedMetrics), asked(dir); offset != kept || offset == 0 || offset > last.Last.Offset {
		i.t.Errorf("from %s: offset %d of the topic and %d of the archive; the last is %d", at, offset, kept, last.Last.Offset)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// otherOptions continues an archive with options that do not fit it.
func (i *installation) otherOptions(dir string) {
	i.t.Helper()
	before := readFile(i.t, filepath.Join(dir, manifest.Name))
	i.refused(exitFailed, "codec is null", "--archive", dir, "--codec", "deflate")
	i.refused(exitFailed, "snapshots is true", "--archive", dir, "--no-snapshot")
	i.refused(exitFailed, "windows are", "--archive", dir, "--window-length", "7s")
	late := filepath.Join(i.t.TempDir(), "late")
	i.must("--archive", late, "--from", "offset:20", i.topics.SeedMetrics)
	i.refused(exitFailed, replay.ErrRange.Error(), "--archive", late, i.topics.SeedMetrics)
	part := filepath.Join(i.t.TempDir(), "part")
	i.must("--archive", part, "--until", "offset:10", i.topics.SeedMetrics)
	i.refused(exitFailed, replay.ErrRange.Error(), "--archive", part, "--from", "offset:20", i.topics.SeedMetrics)
	i.must("--archive", part, i.topics.LayerHealth) // other topics are added
	i.must("verify", part)
	lock, err := manifest.Lock(dir)
	if err != nil {
		i.t.Fatal(err)
	}
	i.refused(exitFailed, manifest.ErrLocked.Error(), "--archive", dir)
	if err := lock.Close(); err != nil {
		i.t.Fatal(err)
	}
	if after := readFile(i.t, filepath.Join(dir, manifest.Name)); after != before {
		i.t.Errorf("what was refused has changed the manifest")
	}
	for _, args := range [][]string{{}, {"--archive", dir, "--aggregate"}, {"--archive", dir, "--from", "soon"}, {"--archive", dir, "--until", "offset:-1"}, {"--archive", dir, "--codec", "zip"}, {"--archive", dir, "--file-size", "0"}} {
		if status, out, _ := i.replays(args...); status != exitUsage || out != "" {
			i.t.Errorf("%v: status %d, %q", args, status, out)
		}
	}
}

// changedRollup changes a rollup on the topic, once in its place and once as a repeat.
func (i *installation) changedRollup(dir string) {
	i.t.Helper()
	at := kafka.New(i.cfg, nil)
	held := i.heldOf(i.topics.LayerHealth)[0]
	var all []*message.Message
	if err := at.Read(i.t.Context(), i.topics.LayerHealth, bus.Range{From: held.Start, End: held.End}, func(msg *message.Message) error {
		all = append(all, msg)
		return nil
	}); err != nil {
		i.t.Fatal(err)
	}
	changed := all[len(all)/2]
	var rollup oona.Rollup
	if _, err := avro.DecodeRollup(changed.Payload, &rollup); err != nil {
		i.t.Fatal(err)
	}
	rollup.Frames++
	changed.Payload = avro.AppendRollup(nil, &rollup)
	publisher, err := at.Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	again := func(messages ...*message.Message) {
		i.t.Helper()
		for _, msg := range messages {
			copied := message.NewMessage("", bytes.Clone(msg.Payload))
			copied.SetContext(bus.WithTarget(copied.Context(), bus.Target{Partition: 0, Directed: true}))
			if err := publisher.Publish(i.t.Context(), i.topics.LayerHealth, copied); err != nil {
				i.t.Fatal(err)
			}
		}
	}
	differs := func(differ, same int64) {
		i.t.Helper()
		status, out, messages := i.replays("--aggregate", "--json")
		c := parse[foldedAgain](i.t, out).Comparison
		if status != exitFailed || c.Differ != differ || c.Replayed != 0 || c.Logged != 0 || c.Same != same || !strings.Contains(messages, string(rollup.Layer)) ||
			!strings.Contains(messages, fmt.Sprintf("%d/%d", rollup.Trigger.Offset, rollup.Trigger.Index)) {
			i.t.Errorf("a rollup was changed: status %d, %s, %q", status, out, messages)
		}
	}
	rollups := parse[foldedAgain](i.t, i.must(dir, "--aggregate", "--json")).Rollups
	again(changed)
	differs(1, rollups)
	i.deleteRecords(i.topics.LayerHealth, 0, i.heldOf(i.topics.LayerHealth)[0].End)
	again(all...)
	differs(1, rollups-1)
	if err := publisher.Close(); err != nil {
		i.t.Fatal(err)
	}
}
