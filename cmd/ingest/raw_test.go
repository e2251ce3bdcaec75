package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// A trainer in Python publishes frames to the raw topic, and two ingests read it, one
// after the other. Each frame is forwarded once, and each bad record is a dead letter.
func TestRawFromPython(t *testing.T) {
	python := requireTrainer(t)
	onBrokers(t, func(t *testing.T, brokers []string) {
		cfg, topics := rawConfig(t, brokers)
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), topics.Specs(3)); err != nil {
			t.Fatal(err)
		}
		var missing *bus.TopicsError
		if err := kafka.New(cfg.Bus, nil).Check(t.Context(), cfg.checkedTopics(topics)); !errors.As(err, &missing) || len(missing.Faults) != 2 || missing.Faults[0].Topic != topics.SeedRaw || missing.Faults[0].Kind != bus.FaultMissing {
			t.Fatalf("without the raw topic a start is answered %v", err)
		}
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), topics.RawSpecs(3)); err != nil {
			t.Fatal(err)
		}

		var want struct{ Frames, Records, Dead int64 }
		settled, stop := startRaw(t, cfg, topics)
		trainer := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "trainer.py"), strings.Join(brokers, ","), topics.SeedRaw)
		trainer.Stderr = os.Stderr
		said, err := trainer.Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(said, &want); err != nil || want.Frames != 304 || want.Records != 305 || want.Dead != 3 {
			t.Fatalf("the trainer says %s (%v)", said, err)
		}
		forwarded := readAll(t, cfg.Bus, topics.SeedMetrics, want.Frames)
		dead := readAll(t, cfg.Bus, topics.SeedRawDead, want.Dead)
		awaitSettled(t, settled, want.Records)
		stop()

		once(t, forwarded, topics)
		partitions := make(map[string]bool)
		for _, m := range forwarded {
			partitions[m.Metadata.Get(oona.HeaderPath)] = true
		}
		if len(partitions) < 2 { // the keys alone go to two
			t.Errorf("frames came by %v: librdkafka's partitioner should have spread them", partitions)
		}
		reasons := make(map[string]int)
		for _, m := range dead {
			reasons[m.Metadata.Get(oona.HeaderErrorException)]++
		}
		if reasons["undecodable"] != 2 || reasons["invalid"] != 1 {
			t.Errorf("dead letters are %v", reasons)
		}

		// What was settled is committed: the next ingest reads nothing again.
		_, stop = startRaw(t, cfg, topics)
		publishRaw(t, cfg.Bus, topics.SeedRaw, fmt.Sprintf(frame, 0))
		after := readAll(t, cfg.Bus, topics.SeedMetrics, want.Frames+1)
		stop()
		if len(after) != len(forwarded)+1 {
			t.Errorf("there are %d frames after a restart, there were %d", len(after), len(forwarded))
		}
	})
}

// Ingests start and end while records are published. Each frame is forwarded at least
// once, and the first copies are in the order in which they were published.
func TestRawWhileIngestsComeAndGo(t *testing.T) {
	onBrokers(t, func(t *testing.T, brokers []string) {
		cfg, topics := rawConfig(t, brokers)
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
			t.Fatal(err)
		}
		const chunks, chunk = 3, 500
		var stops []func()
		for i := range chunks {
			_, stop := startRaw(t, cfg, topics)
			stops = append(stops, stop)
			values := make([]string, chunk)
			for j := range values {
				values[j] = fmt.Sprintf(frame, i*chunk+j)
			}
			publishRaw(t, cfg.Bus, topics.SeedRaw, values...)
			readAll(t, cfg.Bus, topics.SeedMetrics, int64(i*chunk+chunk/2)) // some of the chunk, perhaps not all
			if i > 0 {
				stops[i-1]()
			}
		}
		readAll(t, cfg.Bus, topics.SeedMetrics, chunks*chunk)
		publishRaw(t, cfg.Bus, topics.SeedRaw, "the last")
		readAll(t, cfg.Bus, topics.SeedRawDead, 1)
		stops[chunks-1]()

		inOrder(t, readAll(t, cfg.Bus, topics.SeedMetrics, chunks*chunk), chunks*chunk)
	})
}

// An ingest that is killed before it has committed leaves its records to the
// next, which forwards them again.
func TestRawAfterAKill(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "ingest")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	onBrokers(t, func(t *testing.T, brokers []string) {
		for range 10 {
			if killRaw(t, brokers, binary) > 0 {
				return
			}
			t.Log("nothing was forwarded again: the first had committed everything when it was killed")
		}
		t.Error("no ingest was killed before it had committed")
	})
}

// killRaw kills an ingest while records come. It returns how many frames the next one has
// forwarded again.
func killRaw(t *testing.T, brokers []string, binary string) (repeats int) {
	t.Helper()
	cfg, topics := rawConfig(t, brokers)
	if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
		t.Fatal(err)
	}
	killed := make(chan struct{})
	fed := make(chan int64, 1)
	go func() { fed <- feedRaw(t, cfg.Bus, topics.SeedRaw, killed) }()
	launch := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), binary, "--raw", "--raw-group="+cfg.RawGroup, "--prefix="+cfg.Prefix, "--brokers="+strings.Join(brokers, ","), "--listen=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--log-level=error")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := launch()
	readAll(t, cfg.Bus, topics.SeedMetrics, 1)
	err := first.Process.Kill() // while records come, so that the last commit is behind what was forwarded
	close(killed)
	records := <-fed
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // it was killed
	second := launch()
	publishRaw(t, cfg.Bus, topics.SeedRaw, "the last")
	readAll(t, cfg.Bus, topics.SeedRawDead, 1)
	if err := errors.Join(second.Process.Signal(syscall.SIGTERM), second.Wait()); err != nil {
		t.Errorf("the second ends with %v", err)
	}
	return inOrder(t, readAll(t, cfg.Bus, topics.SeedMetrics, records), records)
}

// A compressed record may be larger than it seems. If it exceeds the limit of a request,
// it is a dead letter, and the records before and after it are forwarded.
func TestRawTakesWhatCompressesWell(t *testing.T) {
	onBrokers(t, func(t *testing.T, brokers []string) {
		cfg, topics := rawConfig(t, brokers)
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
			t.Fatal(err)
		}
		const padding = 80 << 20 // bytes
		s := sarama.NewConfig()
		s.Producer.Compression = sarama.CompressionZSTD
		s.Producer.Return.Successes = true
		s.Producer.MaxMessageBytes = 2 * padding
		s.Version = sarama.V2_8_0_0
		producer, err := sarama.NewSyncProducer(brokers, s)
		if err != nil {
			t.Fatal(err)
		}
		for i, spaces := range []int{0, padding, 0} {
			value := fmt.Sprintf(frame, i) + strings.Repeat(" ", spaces)
			if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topics.SeedRaw, Value: sarama.StringEncoder(value)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := producer.Close(); err != nil {
			t.Fatal(err)
		}
		_, stop := startRaw(t, cfg, topics)
		readAll(t, cfg.Bus, topics.SeedMetrics, 2)
		dead := readAll(t, cfg.Bus, topics.SeedRawDead, 1)
		stop()
		why := dead[0].Metadata.Get(oona.HeaderErrorMessage)
		if dead[0].Metadata.Get(oona.HeaderErrorException) != "too-large" || !strings.Contains(why, "--max-body-bytes") || dead[0].Metadata.Get(oona.HeaderErrorOffset) != "1" {
			t.Errorf("the dead letter is there for %s, %v", why, dead[0].Metadata)
		}
	})
}

// The topic of frames has a lower limit than usual. Frames are batched up to
// --max-message-bytes. If the limit of the topic is lower still, they are sent one by
// one, and only a frame that exceeds the limit by itself is a dead letter.
func TestRawKeepsToTheTopicsLimit(t *testing.T) {
	const records, frames = 3, 24
	for name, limit := range map[string]int{"as told": 60_000, "less than told": 20_000} {
		t.Run(name, func(t *testing.T) {
			onBrokers(t, func(t *testing.T, brokers []string) {
				cfg, topics := rawConfig(t, brokers)
				cfg.Ingest.MaxMessageBytes, cfg.Compression = 60_000, "none"
				if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
					t.Fatal(err)
				}
				probes := limitFrames(t, cfg.Bus, topics.SeedMetrics, limit)
				var log bytes.Buffer // read once all have ended that write it
				w := &worker.Worker{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registry: prometheus.NewRegistry()}
				settled, stop := startRawOf(t, cfg, topics, w)
				values := make([]string, records)
				for i := range values {
					some := make([]string, frames)
					for j := range some {
						some[j] = largeFrame(i*frames + j)
					}
					values[i] = "[" + strings.Join(some, ",") + "]"
				}
				publishRaw(t, cfg.Bus, topics.SeedRaw, values...)
				awaitSettled(t, settled, records)
				stop()
				if n := counted(t, w.Registry, "oona_ingest_raw_records_total", "dead"); n != 0 {
					t.Fatalf("%v good records are dead letters", n)
				}
				if told := strings.Contains(log.String(), "max.message.bytes of the topic"); told != (limit < cfg.Ingest.MaxMessageBytes) {
					t.Errorf("that the topic takes less than was said is told: %v", told)
				}
				inOrder(t, readAll(t, cfg.Bus, topics.SeedMetrics, probes+records*frames)[probes:], records*frames)
			})
		})
	}
}

// largeFrame is a frame of about 7 kB.
func largeFrame(sequence int) string {
	const seeds = 700
	list := func(of func(i int) string) string {
		all := make([]string, seeds)
		for i := range all {
			all[i] = of(i)
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	return fmt.Sprintf(`{"run_id":"r","layer_id":"l","producer_id":"p","producer_epoch":1790000000000000,"sequence":%d,
"observed_at":1790000001000000,"step":7,"seed_ids":%s,"states":%s,"metrics":[{"name":"loss","values":%s}]}`,
		sequence, list(strconv.Itoa), list(func(int) string { return `"DORMANT"` }), list(func(i int) string { return fmt.Sprintf("0.%d", i+1) }))
}

// limitFrames sets the limit of the topic of frames. It returns when the leader of its
// one partition enforces the limit, and the number of records that it accepted before.
func limitFrames(t *testing.T, cfg kafka.Config, topic string, limit int) (probes int64) {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(cfg.Brokers, nil)
	if err != nil {
		t.Fatal(err)
	}
	value := strconv.Itoa(limit)
	err = admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false)
	if err := errors.Join(err, admin.Close()); err != nil {
		t.Fatal(err)
	}
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	probe := message.NewMessage("", message.Payload(strings.Repeat("x", limit)))
	await(t, func() bool {
		if publisher.Publish(context.Background(), topic, probe) != nil {
			return true
		}
		probes++
		return false
	}, func() string { return "the leader takes what is above the limit" })
	return probes
}

// As docs/protocol.md says, records of an aborted transaction are forwarded, too, and
// the marker after them counts as a lag of one.
func TestRawTakesAbortedTransactions(t *testing.T) {
	onBrokers(t, func(t *testing.T, brokers []string) {
		cfg, topics := rawConfig(t, brokers)
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
			t.Fatal(err)
		}
		s := sarama.NewConfig()
		s.Version = sarama.V2_8_0_0
		s.Producer.Return.Successes, s.Producer.Idempotent, s.Producer.RequiredAcks = true, true, sarama.WaitForAll
		s.Net.MaxOpenRequests, s.Producer.Transaction.ID = 1, cfg.Prefix
		producer, err := sarama.NewSyncProducer(brokers, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := producer.BeginTxn(); err != nil {
			t.Fatal(err)
		}
		_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: topics.SeedRaw, Value: sarama.StringEncoder(fmt.Sprintf(frame, 0))})
		if err := errors.Join(err, producer.AbortTxn(), producer.Close()); err != nil {
			t.Fatal(err)
		}
		w := &worker.Worker{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
		_, stop := startRawOf(t, cfg, topics, w)
		inOrder(t, readAll(t, cfg.Bus, topics.SeedMetrics, 1), 1)
		gauge := func(name string) float64 { return gauged(t, w.Registry, "oona_ingest_raw_"+name) }
		await(t, func() bool { return gauge("settled_offset") == 1 && gauge("lag_records") == 1 }, func() string {
			return fmt.Sprintf("settled to %v, lag %v", gauge("settled_offset"), gauge("lag_records"))
		})
		stop()
	})
}

// gauged returns the value of a gauge for partition 0, or 0 if it is missing.
func gauged(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return 0
}

// inOrder checks that each frame is there and that the first copies are in order. It
// returns the number of repeats.
func inOrder(t *testing.T, messages []*message.Message, frames int64) (repeats int) {
	t.Helper()
	next := int64(0)
	for _, m := range messages {
		var f oona.Frame
		if _, err := new(avro.FrameDecoder).Decode(m.Payload, &f); err != nil {
			t.Fatal(err)
		}
		switch {
		case f.Sequence > next:
			t.Fatalf("frame %d comes before frame %d", f.Sequence, next)
		case f.Sequence == next:
			next++
		default:
			repeats++
		}
	}
	if next != frames {
		t.Errorf("there are %d of %d frames", next, frames)
	}
	return repeats
}

// When partitions are added to the topic of frames, records wait in the raw topic.
func TestRawWaitsWhilePartitionsDiffer(t *testing.T) {
	onBrokers(t, func(t *testing.T, brokers []string) {
		cfg, topics := rawConfig(t, brokers)
		if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), append(topics.Specs(1), topics.RawSpecs(1)...)); err != nil {
			t.Fatal(err)
		}
		w := &worker.Worker{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
		settled, stop := startRawOf(t, cfg, topics, w)
		publishRaw(t, cfg.Bus, topics.SeedRaw, fmt.Sprintf(frame, 0))
		readAll(t, cfg.Bus, topics.SeedMetrics, 1)
		addPartitions(t, brokers, topics.SeedMetrics, 2)
		tried := func() float64 { return counted(t, w.Registry, "oona_ingest_raw_retries_total", "frames") }
		published := 1
		await(t, func() bool { // it looks every ten seconds
			publishRaw(t, cfg.Bus, topics.SeedRaw, fmt.Sprintf(frame, published))
			published++
			bus.Pause(t.Context(), 40*time.Millisecond) // some hundred are enough
			return tried() >= 3
		}, func() string { return fmt.Sprintf("%v attempts to forward records have failed, want 3", tried()) })
		stop()
		forwarded := len(readAll(t, cfg.Bus, topics.SeedMetrics, 1))
		if n := settled(); n != float64(forwarded) || forwarded >= published {
			t.Errorf("of %d records %v are settled, %d forwarded", published, n, forwarded)
		}
	})
}

// rawConfig returns the configuration of an ingest with its own raw topic.
func rawConfig(t *testing.T, brokers []string) (*config, oona.Topics) {
	t.Helper()
	cfg, _, err := parse(t, "--raw", "--brokers="+strings.Join(brokers, ","), fmt.Sprintf("--prefix=raw-test-%d", time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RawGroup = cfg.Prefix
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, topics
}

// Ingest does not join the group of an installation with another prefix.
func TestRawGroupOfAnotherPrefix(t *testing.T) {
	onBrokers(t, func(t *testing.T, brokers []string) {
		first, topics := rawConfig(t, brokers)
		second, others := rawConfig(t, brokers)
		second.RawGroup = first.RawGroup
		if _, err := kafka.New(first.Bus, nil).Apply(t.Context(), slices.Concat(topics.Specs(1), topics.RawSpecs(1), others.Specs(1), others.RawSpecs(1))); err != nil {
			t.Fatal(err)
		}
		settled, stop := startRaw(t, first, topics)
		defer stop()
		publishRaw(t, first.Bus, topics.SeedRaw, fmt.Sprintf(frame, 0))
		awaitSettled(t, settled, 1)
		w := &worker.Worker{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
		_, err := second.openRaw(t.Context(), kafka.New(second.Bus, nil), others, nil, w)
		if field, ok := errors.AsType[*oona.FieldError](err); !errors.Is(err, buswatch.ErrSharedGroup) || !ok || field.Field != "--raw-group" {
			t.Errorf("%v, want ErrSharedGroup", err)
		}
	})
}

// requireTrainer returns a Python with the packages of the trainer, or skips the test
// unless they are required.
func requireTrainer(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import confluent_kafka, fastavro").Run()
	}
	if err == nil {
		return python
	}
	if os.Getenv("OONA_REQUIRE_PYTHON") != "" {
		t.Fatalf("OONA_REQUIRE_PYTHON is set, but Python with confluent-kafka and fastavro does not run: %v", err)
	}
	t.Skip("SKIPPED: Python with confluent-kafka and fastavro does not run; make python installs them")
	return ""
}

// startRaw runs the part of an ingest that reads the raw topic. stop ends it and waits
// for its commits. settled returns the number of settled records.
func startRaw(t testing.TB, cfg *config, topics oona.Topics) (settled func() float64, stop func()) {
	t.Helper()
	return startRawOf(t, cfg, topics, &worker.Worker{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
}

func startRawOf(t testing.TB, cfg *config, topics oona.Topics, w *worker.Worker) (settled func() float64, stop func()) {
	t.Helper()
	b := kafka.New(cfg.Bus, w.Logger)
	publisher, err := b.Publisher(cfg.publisher(topics))
	if err != nil {
		t.Fatal(err)
	}
	stage, err := ingest.New(cfg.stage(topics), publisher, w.Registry, w.Logger)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cfg.openRaw(t.Context(), b, topics, stage, w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.RunAll(ctx, time.Minute, raw...) }()
	settled = func() float64 {
		return counted(t, w.Registry, "oona_ingest_raw_records_total", "forwarded") + counted(t, w.Registry, "oona_ingest_raw_records_total", "dead")
	}
	return settled, func() {
		cancel()
		if err := errors.Join(<-ended, w.Close(), publisher.Close()); err != nil {
			t.Error(err)
		}
	}
}

// awaitSettled waits until that many records are settled.
func awaitSettled(t *testing.T, settled func() float64, records int64) {
	t.Helper()
	await(t, func() bool { return settled() >= float64(records) }, func() string {
		return fmt.Sprintf("%v of %d records are settled", settled(), records)
	})
}

func publishRaw(t testing.TB, cfg kafka.Config, topic string, values ...string) {
	t.Helper()
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]*message.Message, len(values))
	for i, value := range values {
		messages[i] = message.NewMessage("", message.Payload(value))
	}
	if err := errors.Join(publisher.Publish(context.Background(), topic, messages...), publisher.Close()); err != nil {
		t.Fatal(err)
	}
}

// feedRaw publishes frames, ten at a time, until it is stopped, and returns their number.
func feedRaw(t *testing.T, cfg kafka.Config, topic string, end <-chan struct{}) (frames int64) {
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer publisher.Close()
	for {
		select {
		case <-end:
			return frames
		default:
		}
		messages := make([]*message.Message, 10)
		for i := range messages {
			messages[i] = message.NewMessage("", message.Payload(fmt.Sprintf(frame, frames)))
			frames++
		}
		if err := publisher.Publish(context.Background(), topic, messages...); err != nil {
			t.Error(err)
			return frames
		}
	}
}

// readAll reads a topic to its end, and at least the given number of records.
func readAll(t *testing.T, cfg kafka.Config, topic string, least int64) (all []*message.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hopeless)
	defer cancel()
	b := kafka.New(cfg, nil)
	var extents map[string][]bus.Extent
	for records := int64(0); records < least; time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%s has %d records, not %d", topic, records, least)
		}
		var err error
		if extents, err = b.Extents(ctx, topic); err != nil {
			t.Fatal(err)
		}
		records = 0
		for _, e := range extents[topic] {
			records += e.End
		}
	}
	for p, e := range extents[topic] {
		err := b.Read(ctx, topic, bus.Range{Partition: int32(p), End: e.End}, func(msg *message.Message) error {
			all = append(all, msg)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// once checks that each frame is there once, with its key and its trace context.
func once(t *testing.T, messages []*message.Message, topics oona.Topics) {
	t.Helper()
	seen := make(map[int64]bool)
	traced := 0
	for _, m := range messages {
		var f oona.Frame
		if rest, err := new(avro.FrameDecoder).Decode(m.Payload, &f); err != nil || len(rest) > 0 {
			t.Fatalf("a frame that does not decode: %v", err)
		}
		if seen[f.Sequence] {
			t.Errorf("frame %d is there twice", f.Sequence)
		}
		seen[f.Sequence] = true
		if at, err := bus.PositionOf(m); err != nil || string(at.Key) != string(oona.Key(f.Run, f.Layer)) || !strings.HasPrefix(m.Metadata.Get(oona.HeaderPath), topics.SeedRaw+"/") {
			t.Errorf("frame %d has the metadata %q", f.Sequence, m.Metadata)
		}
		if m.Metadata.Get("traceparent") != "" {
			traced++
		}
	}
	if traced != 50 {
		t.Errorf("%d frames have a trace, want 50", traced)
	}
}

// BenchmarkRaw measures how many records an ingest forwards from a raw topic with three
// partitions: records of 1,000 seeds and 8 metrics (33 kB), and records of one seed and
// one metric (100 B).
func BenchmarkRaw(b *testing.B) {
	brokers := strings.Split(os.Getenv("OONA_KAFKA"), ",")
	if brokers[0] == "" {
		broker, err := embedded.Start(b.Context(), embedded.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer broker.Close()
		brokers = broker.Addrs
	}
	for name, shape := range map[string]struct{ seeds, metrics, records int }{"small": {1, 1, 100_000}, "large": {1000, 8, 3_000}} {
		b.Run(name, func(b *testing.B) {
			cfg := defaults()
			cfg.Bus = kafka.Config{Brokers: brokers, ClientID: "bench"}
			cfg.Prefix = fmt.Sprintf("raw-bench-%d", time.Now().UnixNano())
			cfg.RawGroup = cfg.Prefix
			topics, err := oona.NewTopics(cfg.Prefix)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := kafka.New(cfg.Bus, nil).Apply(b.Context(), append(topics.Specs(3), topics.RawSpecs(3)...)); err != nil {
				b.Fatal(err)
			}
			f := oona.Frame{Run: "r", Layer: "l", Producer: "p", ObservedAt: oona.MicrosOf(time.Now()), Seeds: make([]oona.SeedID, shape.seeds), States: make([]oona.State, shape.seeds)}
			for i := range f.Seeds {
				f.Seeds[i] = oona.SeedID(i)
			}
			for i := range shape.metrics {
				f.Metrics = append(f.Metrics, oona.Column{Name: fmt.Sprintf("metric_%d", i), Values: make([]float32, shape.seeds)})
			}
			values := make([]string, shape.records)
			for i := range values {
				f.Sequence = int64(i)
				values[i] = string(avro.AppendFrame(nil, &f))
			}
			for b.Loop() {
				b.StopTimer()
				publishRaw(b, cfg.Bus, topics.SeedRaw, values...)
				settled, stop := startRaw(b, cfg, topics)
				for settled() == 0 { // to join the group takes its time
					time.Sleep(time.Millisecond)
				}
				already := settled()
				b.StartTimer()
				began := time.Now()
				for settled() < float64(len(values)) {
					time.Sleep(time.Millisecond)
				}
				b.ReportMetric((float64(len(values))-already)/time.Since(began).Seconds(), "records/s")
				b.StopTimer()
				stop()
				b.StartTimer()
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
