package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// installation has its own topics and group.
type installation struct {
	t      *testing.T
	cfg    kafka.Config
	topics oona.Topics
	group  string
	says   *transcript // of the commands, or nil
	begin  time.Time   // of what recordMinutes has written; zero: nothing
}

// onInstallations runs a test on the embedded broker, and on the Kafka that
// OONA_KAFKA names. What the commands print on the embedded broker is in a golden file
// of the test.
func onInstallations(t *testing.T, test func(t *testing.T, i *installation)) {
	t.Parallel()
	file := strings.ReplaceAll(t.Name(), "/", "-") + ".txt"
	with := func(t *testing.T, cfg kafka.Config) *installation {
		name := fmt.Sprintf("windows-test-%d", time.Now().UnixNano())
		topics, err := oona.NewTopics(name)
		if err != nil {
			t.Fatal(err)
		}
		return &installation{t: t, cfg: cfg, topics: topics, group: name}
	}
	t.Run("embedded", func(t *testing.T) {
		_, cfg := startBroker(t)
		i := with(t, cfg)
		i.says = newTranscript(t, i.group, "PREFIX")
		test(t, i)
		i.says.golden(filepath.Join("installations", file))
	})
	t.Run("kafka", func(t *testing.T) {
		if raceDetector {
			t.Skip("the same runs on the embedded broker, and the race detector sees the client of real Kafka in the tests of bus/kafka")
		}
		addresses := os.Getenv("OONA_KAFKA")
		if addresses == "" && os.Getenv("OONA_REQUIRE_KAFKA") != "1" {
			t.Skip("SKIPPED, NOT TESTED ON REAL KAFKA: OONA_KAFKA is empty; run make kafka-up and set it to the addresses that it prints")
		}
		test(t, with(t, kafka.Config{Brokers: strings.Split(addresses, ","), ClientID: "test"}))
	})
}

// Offsets differ from one run to the next, as some ticks are written for aggregators.
var (
	transcriptOffsets = regexp.MustCompile(`\b(offsets?) \d+( to \d+)?`)
	transcriptFile    = regexp.MustCompile(`\S+/metrics\.yaml`)
)

// oona runs a command on the installation's topics.
func (i *installation) oona(args ...string) (status int, out, messages string) {
	i.t.Helper()
	status, out, messages = run(i.t, append(args, "--brokers", strings.Join(i.cfg.Brokers, ","), "--prefix", i.group)...)
	if i.says != nil {
		mask := func(text string) string {
			return transcriptFile.ReplaceAllString(transcriptOffsets.ReplaceAllString(text, "$1 N"), "metrics.yaml")
		}
		i.says.add([]string{mask(strings.Join(args, " "))}, mask(out+messages), status)
	}
	return status, out, messages
}

// apply runs windows apply, from soon on. It is refused if frames of that time may have come
// before the command looks.
func (i *installation) apply(more ...string) (status int, out, messages string) {
	i.t.Helper()
	soon := time.Now().Add(time.Hour).Format(time.RFC3339)
	return i.oona(append([]string{"windows", "apply", "--yes", "--from", soon}, more...)...)
}

// tick writes a tick into partitions of the seed-metrics topic.
func (i *installation) tick(partitions int) {
	i.t.Helper()
	publisher, err := kafka.New(i.cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	var ticks []*message.Message
	for p := range partitions {
		tick := message.NewMessage("", nil)
		tick.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
		tick.SetContext(bus.WithTarget(tick.Context(), bus.Target{Partition: int32(p), Directed: true}))
		ticks = append(ticks, tick)
	}
	if err := errors.Join(publisher.Publish(context.Background(), i.topics.SeedMetrics, ticks...), publisher.Close()); err != nil {
		i.t.Fatal(err)
	}
}

// aggregateBeyond runs an aggregator, and writes ticks, until all commits are
// beyond an offset.
func (i *installation) aggregateBeyond(offset int64, partitions int, cfg windows.Config) {
	i.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	publisher, err := kafka.New(i.cfg, nil).Publisher(bus.RollupOptions())
	if err != nil {
		i.t.Fatal(err)
	}
	catalogue := func(name string) oona.Metric { return oona.Metric{Name: name} }
	stage, err := aggregate.New(aggregate.Config{Worker: "w", Topics: i.topics, Windows: cfg, Limits: oona.DefaultFrameLimits, Log: settings.Log{Bus: kafka.New(i.cfg, nil), Topics: i.topics, Worker: "w"}}, windows.Always(catalogue), publisher, prometheus.NewRegistry(), logger)
	if err != nil {
		i.t.Fatal(err)
	}
	subscriber, err := kafka.New(i.cfg, logger).Member(bus.MemberOptions{Group: i.group, CommitEvery: 50 * time.Millisecond}, stage)
	if err != nil {
		i.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(i.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, subscriber) }()
	await(i.t, "commits", func() bool {
		i.tick(partitions)
		commits, err := kafka.New(i.cfg, nil).Commits(i.t.Context(), i.group, i.topics.SeedMetrics)
		if err != nil {
			i.t.Fatal(err)
		}
		for _, c := range commits {
			if c.Offset <= offset {
				return false
			}
		}
		return len(commits) == partitions
	})
	cancel()
	if err := errors.Join(<-ended, subscriber.Close(), publisher.Close()); err != nil && !errors.Is(err, context.Canceled) {
		i.t.Fatal(err)
	}
}

// deleteBelow deletes records, as retention does.
func (i *installation) deleteBelow(offset int64, partitions int) {
	i.t.Helper()
	for p := range partitions {
		i.deleteRecords(i.topics.SeedMetrics, int32(p), offset)
	}
}

// deleteRecords deletes the records of a partition below an offset.
func (i *installation) deleteRecords(topic string, partition int32, offset int64) {
	i.t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(i.cfg.Brokers, config)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := errors.Join(admin.DeleteRecords(topic, map[int32]int64{partition: offset}), admin.Close()); err != nil {
		i.t.Fatal(err)
	}
}

// Settings that are not given keep their values even if retention has deleted the
// record that set them, as the group's commits have it.
func TestWindowsAfterRetention(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--window-length", "3s", "--max-layers", "7", "--tick-interval", "10ms", "--idle-horizon", "50ms"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		i.aggregateBeyond(2, 2, windows.DefaultConfig())
		i.deleteBelow(2, 2)

		status, out, messages := i.oona("windows", "show", "--group", i.group)
		if status != 0 {
			t.Errorf("show: status %d, %q, %q", status, out, messages)
		}
		status, out, messages = i.apply("--group", i.group, "--allowed-lateness", "2s")
		if status != 0 {
			t.Errorf("apply: status %d, %q, %q; want nothing but the lateness to change", status, out, messages)
		}
		i.oona("windows", "show", "--group", i.group)

		status, _, messages = i.oona("topics", "apply", "--partitions", "2", "--group", i.group, "--window-length", "4s")
		if status != exitFailed {
			t.Errorf("topics apply with another length: status %d, %q", status, messages)
		}

		// Without the commits, it is not known which configuration holds.
		if status, out, _ := i.oona("windows", "show", "--group", i.group+"-other"); status != 0 {
			t.Errorf("show without a commit: status %d, %q", status, out)
		}
		status, out, messages = i.apply("--group=", "--allowed-lateness", "4s")
		if status != exitFailed || out != "" {
			t.Errorf("apply without a commit: status %d, %q, %q", status, out, messages)
		}
	})
}

// If the log has no configuration, the aggregators' own settings are in their commits.
func TestWindowsOfAggregatorsThemselves(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), append(slices.Concat(i.topics.Specs(1), i.topics.EventSpecs(1)), i.topics.SettingsSpec(), i.topics.RedrivesSpec())); err != nil {
			t.Fatal(err)
		}
		i.tick(1)
		if status, out, _ := i.oona("windows", "show", "--group", i.group); status != 0 {
			t.Errorf("show: status %d, %q", status, out)
		}
		if status, out, messages := i.apply("--group", i.group, "--max-layers", "9"); status != exitFailed || out != "" {
			t.Errorf("apply: status %d, %q, %q", status, out, messages)
		}
		own := windows.DefaultConfig()
		own.Length, own.FrontierSlots = 7*time.Second, 64
		i.aggregateBeyond(-1, 1, own)
		status, out, messages := i.apply("--group", i.group, "--max-layers", "9")
		if status != 0 {
			t.Errorf("apply after a commit: status %d, %q, %q", status, out, messages)
		}
		i.oona("windows", "show", "--group", i.group)
	})
}

// With --assume-newest, the command prints what it assumes, and that it does not know
// whether the new configuration holds.
func TestNewestIsAssumedWhereNothingIsKnown(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--window-length", "3s"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		i.tick(1)
		i.deleteBelow(2, 1)
		status, out, messages := i.apply("--group", i.group, "--max-layers", "9", "--assume-newest")
		if status != exitFailed {
			t.Errorf("status %d, %q, %q", status, out, messages)
		}
	})
}

// The last offset of a log may have no record: the marker of a transaction.
func TestWindowsOfALogThatEndsInAMarker(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--window-length", "3s"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		config := sarama.NewConfig()
		config.Version = sarama.V2_8_0_0
		config.Producer.Return.Successes, config.Producer.Idempotent, config.Producer.RequiredAcks = true, true, sarama.WaitForAll
		config.Net.MaxOpenRequests, config.Producer.Transaction.ID = 1, i.group
		config.Producer.Partitioner = sarama.NewManualPartitioner
		producer, err := sarama.NewSyncProducer(i.cfg.Brokers, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := producer.BeginTxn(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: i.topics.SeedMetrics, Partition: 0, Value: sarama.StringEncoder("no frame")}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(producer.CommitTxn(), producer.Close()); err != nil {
			t.Fatal(err)
		}
		await(t, "the marker, which is written after the commit was answered", func() bool {
			ends, err := kafka.New(i.cfg, nil).Extents(t.Context(), i.topics.SeedMetrics)
			if err != nil {
				t.Fatal(err)
			}
			return ends[i.topics.SeedMetrics][0].End == 4 // an incarnation, a configuration, the record and the marker
		})
		status, out, messages := i.oona("windows", "show", "--group", i.group)
		if status != 0 {
			t.Errorf("show: status %d, %q, %q", status, out, messages)
		}
		if status, out, messages := i.apply("--group", i.group, "--max-layers", "9"); status != 0 {
			t.Errorf("apply: status %d, %q, %q", status, out, messages)
		}
	})
}
