package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// partitions is the number of partitions of the topics.
const partitions = 4

// measureTimeout limits each measurement on a bus.
const measureTimeout = 3 * time.Minute

// wire is a bus to measure on.
type wire struct {
	suffix string // of the figures' names: "" or kafkaSuffix
	bus    kafka.Config
	logger *slog.Logger
	groups []string // consumer groups that forget must delete
}

// reach returns an error if no broker answers.
func (w *wire) reach() error {
	admin, err := w.admin()
	if err != nil {
		return fmt.Errorf("reach the brokers at %v: %w", w.bus.Brokers, err)
	}
	return admin.Close()
}

// settings returns how to connect with sarama itself.
func (w *wire) settings() (*sarama.Config, error) {
	settings := sarama.NewConfig()
	if security := w.bus.Security; security.TLS {
		client, err := tlsfiles.OpenClient(nil, "bus-tls-", security.TLSFiles)
		if err != nil {
			return nil, err
		}
		settings.Net.TLS.Enable, settings.Net.TLS.Config = true, client.Config("") // sarama adds the host
	}
	return settings, nil
}

func (w *wire) admin() (sarama.ClusterAdmin, error) {
	settings, err := w.settings()
	if err != nil {
		return nil, err
	}
	return sarama.NewClusterAdmin(w.bus.Brokers, settings)
}

// group returns the name of a new consumer group.
func (w *wire) group() string {
	w.groups = append(w.groups, "bench-"+ulid.Make().String())
	return w.groups[len(w.groups)-1]
}

// kafkaSuffix is the suffix of figures that were taken on the brokers of --kafka.
const kafkaSuffix = "_kafka"

// topics creates topics for one measurement.
func (w *wire) topics(ctx context.Context) (oona.Topics, error) {
	topics, err := oona.NewTopics("bench-" + ulid.Make().String())
	if err != nil {
		return oona.Topics{}, err
	}
	if _, err = kafka.New(w.bus, nil).Apply(ctx, topics.Specs(partitions)); err != nil {
		err = errors.Join(err, w.forget(topics))
	}
	return topics, err
}

// onTopics takes a measurement with topics of its own, within measureTimeout, and deletes the
// topics.
func (w *wire) onTopics(ctx context.Context, measure func(context.Context, oona.Topics) error) error {
	topics, err := w.topics(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	err = measure(limited, topics)
	return errors.Join(err, w.forget(topics))
}

// forget deletes the topics of a measurement, which hold a gigabyte, and the consumer
// groups.
func (w *wire) forget(topics oona.Topics) error {
	admin, err := w.admin()
	if err != nil {
		return fmt.Errorf("delete the topics of a measurement: %w", err)
	}
	for _, spec := range topics.Specs(partitions) {
		if failed := admin.DeleteTopic(spec.Name); !errors.Is(failed, sarama.ErrUnknownTopicOrPartition) { // it may not have been created
			err = errors.Join(err, failed)
		}
	}
	err = errors.Join(err, w.forgetGroups(admin))
	if err = errors.Join(err, admin.Close()); err != nil {
		return fmt.Errorf("delete the topics of a measurement: %w", err)
	}
	return nil
}

func (w *wire) forgetGroups(admin sarama.ClusterAdmin) (err error) {
	for _, group := range w.groups {
		failed := admin.DeleteConsumerGroup(group)
		if errors.Is(failed, sarama.ErrNonEmptyGroup) { // a member was killed
			if failed = expel(admin, group); failed == nil {
				failed = admin.DeleteConsumerGroup(group)
			}
		}
		if failed != nil && !errors.Is(failed, sarama.ErrGroupIDNotFound) { // not found: it has committed nothing
			err = errors.Join(err, fmt.Errorf("group %s: %w", group, failed))
		}
	}
	w.groups = nil
	return err
}

// expel removes the members of a group. Members that were killed do not leave by
// themselves, and members of Kafka Streams never do.
func expel(admin sarama.ClusterAdmin, group string) error {
	found, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return err
	}
	coordinator, err := admin.Coordinator(group)
	if err != nil {
		return err
	}
	for _, description := range found {
		for id := range description.Members {
			if _, err := coordinator.LeaveGroup(&sarama.LeaveGroupRequest{GroupId: group, MemberId: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// publish publishes the corpus, each frame to the partition of its key. Several senders
// publish concurrently, each the frames of its own layers, like trainers. They wait for
// each other after each step, so that no frames are late.
func (w *wire) publish(ctx context.Context, topic string, c *corpus, run oona.RunID) (err error) {
	publisher, err := kafka.New(w.bus, w.logger).Publisher(bus.PublisherOptions{Compression: "lz4", DeliveryTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	const senders = 4
	stride := len(c.layers) // a step
	for at := 0; at < len(c.payloads); at += stride {
		var batches [senders][]*message.Message
		for i := at; i < min(at+stride, len(c.payloads)); i++ {
			msg := bus.NewMessage(c.payloads[i], bus.Target{Key: oona.Key(run, c.layers[c.layerOf[i]])})
			msg.Metadata.Set(oona.HeaderPath, "bench")
			sender := c.layerOf[i] % senders
			batches[sender] = append(batches[sender], msg)
		}
		var group errgroup.Group
		for _, batch := range batches {
			group.Go(func() error { return publisher.Publish(ctx, topic, batch...) })
		}
		if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
			return fmt.Errorf("publish to %s: %w", topic, err)
		}
	}
	return nil
}

var (
	drainSpeed = figure{name: "drain_msamples", unit: "M samples/s",
		about: "preloaded frames through the pipeline of cmd/aggregate"}
	readSpeed = figure{name: "read_msamples", unit: "M samples/s",
		about: "the same frames, only read and acknowledged with watermill-kafka"}
	drainRatio = figure{name: "drain_over_read", unit: "", goal: 0.8, about: "ratio of the two above"}
)

func (w *wire) named(f figure) figure {
	f.name += w.suffix
	return f
}

// measureDrain reads the same topic twice: with watermill-kafka only, and with the
// pipeline.
func (w *wire) measureDrain(ctx context.Context, topics oona.Topics, c *corpus, into *figures) error {
	read, err := w.read(ctx, topics.SeedMetrics, len(c.payloads))
	if err != nil {
		return err
	}
	drained, err := w.drain(ctx, topics, c, nil)
	if err != nil {
		return err
	}
	into.take(w.named(readSpeed), c.samples()/read.Seconds()/1e6)
	into.take(w.named(drainSpeed), c.samples()/drained.Seconds()/1e6)
	into.take(w.named(drainRatio), read.Seconds()/drained.Seconds())
	return nil
}

// read reads a number of messages of a topic with watermill-kafka's own subscriber, which
// commits automatically every second. It returns the time from the first message to the
// last.
func (w *wire) read(ctx context.Context, topic string, messages int) (time.Duration, error) {
	settings, err := w.settings()
	if err != nil {
		return 0, err
	}
	settings.Consumer.Return.Errors = true
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Interval = time.Second
	settings.Consumer.Fetch.Default = 8 << 20 // as Oona's: with the default of 1 MiB, reading is slower
	subscriber, err := wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers: w.bus.Brokers, ConsumerGroup: w.group(),
		Unmarshaler: located{}, OverwriteSaramaConfig: settings,
	}, watermill.NopLogger{})
	if err != nil {
		return 0, err
	}
	return count(ctx, subscriber, topic, messages)
}

// located unmarshals messages with their positions, as Oona does.
type located struct{}

func (located) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	msg := message.NewMessage("", r.Value)
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Appended: oona.MicrosOf(r.Timestamp)}))
	return msg, nil
}

// count acknowledges a number of messages and closes the subscriber.
func count(ctx context.Context, subscriber message.Subscriber, topic string, messages int) (took time.Duration, err error) {
	defer func() { err = errors.Join(err, subscriber.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	in, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return 0, err
	}
	var began time.Time
	for n := range messages {
		select {
		case msg, ok := <-in:
			if !ok {
				return 0, fmt.Errorf("%s ended after %d of %d messages", topic, n, messages)
			}
			if n == 0 {
				began = time.Now()
			}
			msg.Ack()
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d messages were read from %s in %s", n, messages, topic, measureTimeout)
		}
	}
	return time.Since(began), nil
}

// drain runs the stage of cmd/aggregate, with its subscriber and publisher, until it has
// folded all records of the corpus, and the results are published and committed. It
// returns the time since the first record.
func (w *wire) drain(ctx context.Context, topics oona.Topics, c *corpus, started func() error) (took time.Duration, err error) {
	known, err := catalogue.Default()
	if err != nil {
		return 0, err
	}
	publisher, err := kafka.New(w.bus, w.logger).Publisher(bus.RollupOptions())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	stage, err := aggregate.New(aggregate.Config{Worker: "bench", Topics: topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits},
		windows.Always(known.Metric), publisher, prometheus.NewRegistry(), w.logger)
	if err != nil {
		return 0, err
	}
	subscriber, err := kafka.New(w.bus, w.logger).Member(bus.MemberOptions{Group: w.group()}, stage)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, subscriber) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended, subscriber.Close())
	}()
	if started != nil {
		if err := until(ctx, func() bool { return stage.Ready() == nil }); err != nil {
			return 0, fmt.Errorf("the aggregator did not become ready: %w", err)
		}
		if err := started(); err != nil {
			return 0, err
		}
	}
	if err := until(ctx, func() bool { return stage.Counts().Next > 0 }); err != nil {
		return 0, fmt.Errorf("the first record: %w", err)
	}
	began := time.Now()
	records, distinct, rollups := c.records(), c.frames(), c.closedRollups()
	if err := until(ctx, func() bool { n := stage.Counts(); return n.Next >= int64(records) && n.Pending == 0 }); err != nil {
		return 0, fmt.Errorf("%d of %d records were folded: %w", stage.Counts().Next, records, err)
	}
	took = time.Since(began)
	if n := stage.Counts(); n.Folded != int64(distinct) || n.Duplicate != int64(records-distinct) || n.Rollups != int64(rollups) {
		return 0, fmt.Errorf("want %d rollups of %d records, of which %d are repeats; got %+v", rollups, records, records-distinct, n)
	}
	return took, nil
}

// until waits for a condition, which it checks every millisecond.
func until(ctx context.Context, condition func() bool) error {
	for ticker := time.NewTicker(time.Millisecond); ; {
		if condition() {
			ticker.Stop()
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the condition did not become true: %w", ctx.Err())
		}
	}
}
