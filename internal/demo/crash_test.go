package demo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/loadgen"
)

// An aggregator that is killed again and again in the middle of a run leaves
// the same rollups as one that runs to the end. All copies of a rollup have the same
// content, a reader that drops by trigger reads each rollup once, and no frame goes
// to a side topic.
func TestAggregatorIsKilled(t *testing.T) {
	t.Parallel()
	want, frames := oracle(t)
	binaries := build(t, "ingest", "aggregate")
	brokers(t, func(t *testing.T, addresses []string) {
		inTime(t, addresses, func(t *testing.T, ctx context.Context, cfg Config) (late bool) {
			return killAggregators(t, ctx, cfg, binaries, want, frames)
		})
	})
}

func killAggregators(t *testing.T, ctx context.Context, cfg Config, binaries map[string]string, want map[oona.LayerID]*total, frames int64) (late bool) {
	t.Helper()
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	busConfig := kafka.Config{Brokers: cfg.Kafka, ClientID: "test"}
	if _, err := kafka.New(busConfig, nil).Apply(ctx, topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	common := []string{"--brokers", strings.Join(cfg.Kafka, ","), "--prefix", cfg.Prefix, "--admin-address", "127.0.0.1:0", "--log-format", "json"}
	ingest := launch(t, binaries["ingest"], append(common, "--listen", "127.0.0.1:0")...)
	ingest.awaitReady(t, ctx)
	aggregate := func() *process {
		p := launch(t, binaries["aggregate"], append(common, "--group", cfg.Prefix, "--group-instance", "one", "--window-length", "1s",
			"--out-of-orderness", "100ms", "--allowed-lateness", "250ms", "--tick-interval", "125ms", "--idle-horizon", cfg.Idle.String())...)
		p.awaitReady(t, ctx)
		return p
	}
	running := aggregate()

	// The recording is played, run after run, until the aggregator has been
	// killed often enough, each time after it had folded and committed.
	const enough = 4
	var kills atomic.Int64
	played := make(chan error, 1)
	plays := int64(0) // of the goroutine, until played is received from
	go func() {
		var err error
		for err == nil && (plays == 0 || kills.Load() < enough) {
			err = playRecording(ctx, "http://"+ingest.address("ingest accepts frames"), 8, frames)
			plays++
		}
		played <- err
	}()
	replayed := 0.0
	for done := false; !done; {
		select {
		case err := <-played:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(pollInterval):
			if running.metric(t, "oona_aggregate_records_total", "") < 200 || running.metric(t, "oona_aggregate_commits_total", "") < 2 {
				continue
			}
			replayed += running.metric(t, "oona_aggregate_replayed_records_total", "")
			if err := running.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			running.drain()
			_ = running.cmd.Wait() // it was killed
			kills.Add(1)
			running = aggregate()
		}
	}
	for running.metric(t, "oona_aggregate_open_windows", "") > 0 || running.metric(t, "oona_aggregate_lag_records", "") > 0 {
		if !bus.Pause(ctx, pollInterval) {
			t.Fatal("the last windows did not close")
		}
	}
	replayed += running.metric(t, "oona_aggregate_replayed_records_total", "")
	running.terminate(t)
	if kills.Load() < enough || replayed == 0 {
		t.Fatalf("%d kills, %v records replayed: the faults did not fire", kills.Load(), replayed)
	}

	ingest.terminate(t)
	ends, err := kafka.New(busConfig, nil).Extents(ctx, topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead)
	if err != nil {
		t.Fatal(err)
	}
	for topic, partitions := range ends {
		for _, e := range partitions {
			if e.End > 0 && topic == topics.Late {
				return true
			}
			if e.End > 0 {
				t.Errorf("%d records on %s", e.End, topic)
			}
		}
	}
	all := readRollups(t, kafka.New(busConfig, nil), topics)
	first := onceEach(t, all)
	t.Logf("%d kills, %v records replayed, %d of %d rollups emitted again", kills.Load(), replayed, len(all)-len(first), len(all))
	checkRollups(t, first, times(want, plays))
	return false
}

// times returns the totals of n plays of a recording.
func times(want map[oona.LayerID]*total, n int64) map[oona.LayerID]*total {
	all := make(map[oona.LayerID]*total)
	for layer, w := range want {
		sum := &total{frames: n * w.frames, readings: n * w.readings, metrics: make(map[string]*metricTotal)}
		for name, m := range w.metrics {
			sum.metrics[name] = &metricTotal{
				count: n * m.count, notMeasured: n * m.notMeasured, infinite: n * m.infinite,
				sum: float64(n) * m.sum, absolute: float64(n) * m.absolute, least: m.least, most: m.most,
			}
		}
		all[layer] = sum
	}
	return all
}

func playRecording(ctx context.Context, url string, speed float64, frames int64) error {
	file, err := os.Open(recording)
	if err != nil {
		return err
	}
	defer file.Close()
	playing := loadgen.DefaultConfig()
	playing.URL, playing.Speed, playing.Recording = url, speed, file
	p, err := loadgen.New(playing)
	if err != nil {
		return err
	}
	result, err := p.Run(ctx)
	if err == nil && result.Acknowledged != frames {
		err = fmt.Errorf("%d of %d frames were acknowledged", result.Acknowledged, frames)
	}
	return err
}

// onceEach reads the topics as a reader does: of each partition, what is above
// the highest trigger so far. What it drops must be known, and the same.
func onceEach(t *testing.T, all []readRollup) (first []readRollup) {
	t.Helper()
	type key struct {
		group oona.Group
		run   oona.RunID
		layer oona.LayerID
		start oona.Micros
	}
	hashes := make(map[key]uint64)
	for i := range all {
		r := &all[i]
		k := key{r.Group, r.Run, r.Layer, r.Start}
		hash, known := hashes[k]
		if known && hash != r.Hash {
			t.Errorf("the rollup of %s at %d was emitted with two contents, at trigger %+v", r.Layer, r.Start, r.Trigger)
		}
		hashes[k] = r.Hash
	}
	type partition struct {
		group     oona.Group
		partition int32
	}
	highest := make(map[partition]oona.Trigger)
	seen := make(map[key]bool)
	for i := range all {
		r := &all[i]
		p := partition{r.Group, r.partition}
		if last, any := highest[p]; any && !r.Trigger.After(last) {
			continue
		}
		highest[p] = r.Trigger
		k := key{r.Group, r.Run, r.Layer, r.Start}
		if seen[k] {
			t.Errorf("the rollup of %s at %d comes twice to a reader that drops by trigger", r.Layer, r.Start)
		}
		seen[k] = true
		first = append(first, *r)
	}
	if len(seen) != len(hashes) {
		t.Errorf("a reader that drops by trigger sees %d rollups of %d", len(seen), len(hashes))
	}
	return first
}
