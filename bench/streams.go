package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/windows"
)

var (
	streamsSpeed = figure{name: "kafka_streams_msamples", unit: "M samples/s",
		about: "the same topic with Kafka Streams, exactly_once_v2: moments and a histogram, but no duplicates, states or worst seeds"}
	overStreams = figure{name: "drain_over_kafka_streams", goal: 5,
		about: "drain_msamples_kafka over the one above"}
)

// commitEvery is the commit interval of Kafka Streams. It is that of Oona.
const commitEvery = time.Second

// streams is the compiled program of bench/peers/streams, and how to run it.
type streams struct {
	java string
	args []string // before the program's own arguments
}

// buildStreams compiles the program into a directory, with jars from Maven.
func buildStreams(ctx context.Context, sources, dir string) (*streams, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, localkafka.ErrNoJava
	}
	javac, err := exec.LookPath("javac")
	if err != nil {
		return nil, fmt.Errorf("javac is not on the PATH (Debian: apt-get install openjdk-17-jdk-headless): %w", err)
	}
	cache, err := localkafka.DefaultCache()
	if err != nil {
		return nil, err
	}
	lib, err := localkafka.Jars(ctx, cache, "kafka-streams")
	if err != nil {
		return nil, err
	}
	sources = filepath.Join(sources, "streams")
	files, err := filepath.Glob(filepath.Join(sources, "*.java"))
	if err != nil {
		return nil, err
	}
	jars := filepath.Join(lib, "*")
	compile := exec.CommandContext(ctx, javac, append([]string{"--release", "17", "-cp", jars, "-d", dir}, files...)...)
	if output, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w\n%s", sources, err, bytes.TrimSpace(output))
	}
	return &streams{java: java, args: []string{
		"-Xmx2g", "-Djava.io.tmpdir=" + dir, "-Dlog4j2.configurationFile=" + filepath.Join(sources, "log4j2.properties"),
		"-cp", dir + string(filepath.ListSeparator) + jars, "Aggregate",
	}}, nil
}

// aggregated is the output of the program.
type aggregated struct {
	Records       int     `json:"records"`
	Samples       int     `json:"samples"`
	Seconds       float64 `json:"seconds"` // from the first record to the last processed
	Windows       int     `json:"windows"` // number of closed windows of layers
	ClosedSamples int     `json:"closed_samples"`
}

// measureStreams aggregates the topic that was drained with Kafka Streams.
func (w *wire) measureStreams(ctx context.Context, s *streams, topics oona.Topics, c *corpus, into *figures) (err error) {
	application := w.group()
	defer func() { err = errors.Join(err, w.forgetApplication(application)) }()
	cfg := windows.DefaultConfig()
	grace := cfg.OutOfOrderness + cfg.AllowedLateness
	threads := min(partitions, runtime.GOMAXPROCS(0))
	run := exec.CommandContext(ctx, s.java, append(s.args[:len(s.args):len(s.args)],
		strings.Join(w.bus.Brokers, ","), topics.SeedMetrics, strconv.Itoa(len(c.payloads)), application,
		strconv.Itoa(threads), millis(commitEvery), millis(cfg.Length), millis(grace))...)
	var out, messages bytes.Buffer
	run.Stdout, run.Stderr = &out, &messages
	if err := run.Run(); err != nil {
		return fmt.Errorf("run Kafka Streams: %w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	var got aggregated
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		return fmt.Errorf("parse the output of Kafka Streams: %w", err)
	}
	closed := c.closed()
	if got.Records != len(c.payloads) || got.Samples != int(c.samples()) || got.ClosedSamples != closed*samplesPerFrame || got.Windows == 0 {
		return fmt.Errorf("for %d records, of which %d are in windows that close, the output of Kafka Streams is %+v", len(c.payloads), closed, got)
	}
	speed := float64(got.Samples) / got.Seconds / 1e6
	into.take(streamsSpeed, speed)
	into.takeRatio(overStreams, w.named(drainSpeed), streamsSpeed)
	return nil
}

// forgetApplication deletes the topics that Kafka Streams has created. Their names begin
// with the application's name.
func (w *wire) forgetApplication(name string) error {
	admin, err := sarama.NewClusterAdmin(w.bus.Brokers, nil)
	if err != nil {
		return fmt.Errorf("delete the topics of Kafka Streams: %w", err)
	}
	topics, err := admin.ListTopics()
	for topic := range topics {
		if strings.HasPrefix(topic, name+"-") {
			err = errors.Join(err, admin.DeleteTopic(topic))
		}
	}
	if err = errors.Join(err, admin.Close()); err != nil {
		return fmt.Errorf("delete the topics of Kafka Streams: %w", err)
	}
	return nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
