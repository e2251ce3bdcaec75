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
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// partitions of the topics on either broker.
const partitions = 4

// patience bounds each measure on a bus.
const patience = 3 * time.Minute

// wire is a bus to measure on, with topics of its own.
type wire struct {
	suffix string // of the figures' names: "" or kafkaSuffix
	bus    kafka.Config
	logger *slog.Logger
	groups []string // that have read since the last forget
}

// reach fails where no broker answers.
func (w *wire) reach() error {
	admin, err := sarama.NewClusterAdmin(w.bus.Brokers, nil)
	if err != nil {
		return fmt.Errorf("reach the brokers at %v: %w", w.bus.Brokers, err)
	}
	return admin.Close()
}

// group returns the name of a new consumer group.
func (w *wire) group() string {
	w.groups = append(w.groups, "bench-"+ulid.Make().String())
	return w.groups[len(w.groups)-1]
}

// kafkaSuffix ends the names of figures of the brokers of --kafka.
const kafkaSuffix = "_kafka"

// topics makes the topics of one measure.
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

// forget deletes the topics of a measure, which hold a gigabyte, and the groups
// that have read.
func (w *wire) forget(topics oona.Topics) error {
	admin, err := sarama.NewClusterAdmin(w.bus.Brokers, nil)
	if err != nil {
		return fmt.Errorf("delete the topics of a measure: %w", err)
	}
	for _, spec := range topics.Specs(partitions) {
		if failed := admin.DeleteTopic(spec.Name); !errors.Is(failed, sarama.ErrUnknownTopicOrPartition) { // making them may have failed
			err = errors.Join(err, failed)
		}
	}
	err = errors.Join(err, w.forgetGroups(admin))
	if err = errors.Join(err, admin.Close()); err != nil {
		return fmt.Errorf("delete the topics of a measure: %w", err)
	}
	return nil
}

func (w *wire) forgetGroups(admin sarama.ClusterAdmin) (err error) {
	for _, group := range w.groups {
		failed := admin.DeleteConsumerGroup(group)
		if errors.Is(failed, sarama.ErrNonEmptyGroup) { // its program was killed
			if failed = expel(admin, group); failed == nil {
				failed = admin.DeleteConsumerGroup(group)
			}
		}
		if failed != nil && !errors.Is(failed, sarama.ErrGroupIDNotFound) { // that has committed nothing
			err = errors.Join(err, fmt.Errorf("group %s: %w", group, failed))
		}
	}
	w.groups = nil
	return err
}

// expel lets a group's members leave it, as those do not that were killed, and
// those of Kafka Streams never.
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

// publish sends the corpus, each frame to its key's partition. Several senders
// publish at a time, each the frames of its own layers, as trainers would; they
// keep in step, so that none is late for the windows of another.
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
		about: "the same frames read by watermill-kafka alone, acking"}
	drainRatio = figure{name: "drain_over_read", unit: "", goal: 0.8, about: "of the two above"}
)

func (w *wire) named(f figure) figure {
	f.name += w.suffix
	return f
}

// measureDrain reads the same topic twice: by Watermill alone, then by the
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

// read takes so many messages of a topic with watermill-kafka's own subscriber
// and automatic commits every second, and returns the time from the first to
// the last.
func (w *wire) read(ctx context.Context, topic string, messages int) (time.Duration, error) {
	settings := sarama.NewConfig()
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

// located makes messages that know where they stood, as Oona's do.
type located struct{}

func (located) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	msg := message.NewMessage("", r.Value)
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Appended: oona.MicrosOf(r.Timestamp)}))
	return msg, nil
}

// count acks so many messages and closes the subscriber.
func count(ctx context.Context, subscriber message.Subscriber, topic string, messages int) (took time.Duration, err error) {
	defer func() { err = errors.Join(err, subscriber.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
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
				return 0, fmt.Errorf("%s ended after %d messages of %d", topic, n, messages)
			}
			if n == 0 {
				began = time.Now()
			}
			msg.Ack()
		case <-ctx.Done():
			return 0, fmt.Errorf("%d messages of %d were read from %s in %s", n, messages, topic, patience)
		}
	}
	return time.Since(began), nil
}

// drain runs the stage of cmd/aggregate, with its subscriber and its publisher,
// until it has taken all records of the corpus, and all that came of them is
// published and committed. It returns the time since the first.
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
	ctx, cancel := context.WithTimeout(ctx, patience)
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
		return 0, fmt.Errorf("%d records of %d: %w", stage.Counts().Next, records, err)
	}
	took = time.Since(began)
	if n := stage.Counts(); n.Folded != int64(distinct) || n.Duplicate != int64(records-distinct) || n.Rollups != int64(rollups) {
		return 0, fmt.Errorf("of %d records, %d of them repeats, were to come %d rollups, and came %+v", records, records-distinct, rollups, n)
	}
	return took, nil
}

// until waits for a condition, looking every millisecond.
func until(ctx context.Context, condition func() bool) error {
	for ticker := time.NewTicker(time.Millisecond); ; {
		if condition() {
			ticker.Stop()
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		}
	}
}
