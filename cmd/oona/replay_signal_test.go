package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
)

// Processes of oona replay --avro that are interrupted at random times exit with 130, leave
// what verifies, and write together what one process writes.
func TestReplayAvroIsInterrupted(t *testing.T) {
	_, cfg := startBroker(t)
	i := &installation{t: t, cfg: cfg, topics: defaultNames(t), group: "kasmina"}
	i.applyTopics()
	i.recordMinutes(0, 20)
	command := func(dir string) []string {
		return []string{"replay", "--avro", dir, "--file-size", "4KiB", "--until", "offset:100000", "--brokers", strings.Join(cfg.Brokers, ","), "--group=", i.topics.SeedMetrics}
	}
	one := t.TempDir()
	begin := time.Now()
	if status := interrupted(t, time.Hour, os.Kill, command(one)...); status != 0 {
		t.Fatalf("status %d", status)
	}
	took, want := time.Since(begin), contentsOf(t, one)
	for hits := 0; hits < 2; {
		dir := t.TempDir()
		took = untilItEnds(t, took, os.Interrupt, func(status int) {
			if status == -1 {
				return // it came before the process waited for it
			}
			if status != exitInterrupted {
				t.Fatalf("status %d, want %d", status, exitInterrupted)
			}
			hits++
			if _, err := manifest.Read(dir); err == nil {
				i.must("verify", dir)
			}
		}, command(dir)...)
		sameContents(t, contentsOf(t, dir), want)
	}
}

// What ends a replay that makes rollups says that it was interrupted.
func TestReplayAggregateIsInterrupted(t *testing.T) {
	_, cfg := startBroker(t)
	i := &installation{t: t, cfg: cfg, topics: defaultNames(t), group: "kasmina"}
	i.applyTopics()
	i.recordMinutes(0, 2)
	for _, more := range [][]string{nil, {"--lines"}, {"--window=1m"}} {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGrammar()
		parser, err := kong.New(g, worker.Options()...)
		if err != nil {
			t.Fatal(err)
		}
		command, err := parser.Parse(append([]string{"replay", "--aggregate", "--group=", "--brokers", strings.Join(cfg.Brokers, ",")}, more...))
		if err != nil {
			t.Fatal(err)
		}
		r, to := &g.Replay.Run, streams{strings.NewReader(""), io.Discard, io.Discard}
		job, err := g.Replay.open(ctx, nil, to, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		job.log = interrupting{job.log, cancel}
		chosen, err := r.action()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.run(ctx, job, chosen, command, to); !errors.Is(err, errFoldInterrupted) || exitStatus(ctx, err) != exitInterrupted {
			t.Errorf("%v: %v", more, err)
		}
	}
}

// interrupting is a log that is interrupted when ten records of a range were read.
type interrupting struct {
	replay.Log
	interrupt func()
}

func (l interrupting) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	n := 0
	return l.Log.Read(ctx, topic, r, func(msg *message.Message) error {
		if n++; n == 10 {
			l.interrupt()
		}
		return errors.Join(ctx.Err(), take(msg))
	})
}

// A process of oona replay --to-topic that is interrupted exits with 130 and says where to
// continue. What it says sends the rest, and at most the records of a batch twice.
func TestReplayToTopicIsInterrupted(t *testing.T) {
	_, cfg := startBroker(t)
	i := &installation{t: t, cfg: cfg, topics: defaultNames(t), group: "kasmina"}
	i.applyTopics()
	const records = 30_000
	i.publishMany(i.topics.Quarantine, records)
	brokers := strings.Join(cfg.Brokers, ",")
	for try := range 20 {
		target := i.topics.Late
		before := i.sentTo(target)
		args := []string{"replay", "--to-topic", target, "--yes", "--brokers", brokers, "--group=", i.topics.Quarantine, "--partition=0"}
		cmd, out := process(t, args)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		var err error
		for running := true; running; {
			select {
			case err = <-ended:
				running = false
			default:
				if i.sentTo(target) > before {
					_ = cmd.Process.Signal(os.Interrupt)
				}
			}
		}
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed {
			t.Logf("try %d: it ended before the signal", try)
			continue
		}
		if exit.ExitCode() != exitInterrupted {
			t.Fatalf("%v\n%s", err, out)
		}
		sent := i.sentTo(target) - before
		_, said, _ := strings.Cut(out.String(), "--from offset:")
		digits, _, _ := strings.Cut(said, " ")
		next, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || next > sent || next < sent-sendRecords || !strings.Contains(out.String(), "oona replay "+i.topics.Quarantine+" --partition 0 --from offset:") {
			t.Fatalf("%d records were sent, and the command says\n%s", sent, out)
		}
		if status, _, messages := run(t, append(args, "--from", "offset:"+digits)...); status != 0 {
			t.Fatal(messages)
		}
		if all := i.sentTo(target) - before; all < records || all > records+sendRecords {
			t.Errorf("%d records were sent in all, want %d, and at most %d more", all, records, sendRecords)
		}
		return
	}
	t.Error("no process was interrupted while it sent")
}

// publishMany writes small records to the first partition of a topic.
func (i *installation) publishMany(topic string, records int) {
	i.t.Helper()
	publisher, err := kafka.New(i.cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	for sent := 0; sent < records; {
		var all []*message.Message
		for range 1000 {
			all = append(all, bus.NewMessage([]byte(fmt.Sprint(sent)), bus.Target{Directed: true}))
			sent++
		}
		if err := publisher.Publish(i.t.Context(), topic, all...); err != nil {
			i.t.Fatal(err)
		}
	}
	if err := publisher.Close(); err != nil {
		i.t.Fatal(err)
	}
}

// sentTo returns how many records a topic has.
func (i *installation) sentTo(topic string) (n int64) {
	i.t.Helper()
	for _, held := range i.heldOf(topic) {
		n += held.End
	}
	return n
}

// With --to-brokers, the topic is on another cluster, also one of the same name.
func TestReplayToOtherBrokers(t *testing.T) {
	w, other := newWatched(t), newWatched(t)
	w.fill()
	args := []string{"--to-topic", w.topics.SeedMetrics, "--to-brokers", other.brokers, w.topics.SeedMetrics}
	if status, _, messages := w.replayOf(args...); status == 0 || !strings.Contains(messages, errOwnTopic.Error()) {
		t.Errorf("without --yes: status %d, %q", status, messages)
	}
	status, out, messages := w.replayOf(append(args, "--yes", "--json")...)
	if status != 0 || !strings.Contains(out, `: 6`) {
		t.Fatalf("status %d, %q, %q", status, out, messages)
	}
	if here, there := len(recordsOf(t, w, w.topics.SeedMetrics)), recordsOf(t, other, w.topics.SeedMetrics); here != 6 || len(there) != 6 || there[3].Metadata.Get(headerReplayedFrom) != w.topics.SeedMetrics+"/0/3" {
		t.Errorf("%d records here, %d there", here, len(there))
	}
	dir := filepath.Join(t.TempDir(), "archive")
	if status, _, messages := w.replayOf("--archive", dir, "--no-snapshot", w.topics.SeedMetrics); status != 0 {
		t.Fatal(messages)
	}
	if status, _, messages := run(t, "replay", dir, "--to-topic", other.topics.Late, "--to-brokers", other.brokers, "--yes"); status != 0 || len(recordsOf(t, other, other.topics.Late)) != 6 {
		t.Errorf("from an archive: status %d, %q", status, messages)
	}
	for _, args := range [][]string{{"--to-brokers=" + other.brokers, "--lines"}, {"--to-topic=x", "--to-brokers=127.0.0.1:1"}} {
		if status, _, messages := w.replayOf(args...); status == 0 || messages == "" {
			t.Errorf("%v: status %d, %q", args, status, messages)
		}
	}
}
