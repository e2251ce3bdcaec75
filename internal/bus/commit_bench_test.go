package bus_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/bus/embedded"
)

// always commits what its partitions have handed out, with as much metadata as
// a busy engine's.
type always struct{ metadata string }

func (always) Open(context.Context, oona.Claim) error { return nil }
func (always) Close(oona.Claim)                       {}

func (a always) Commit(c oona.Claim, _ int64) (oona.Commit, bool) {
	return oona.Commit{Offset: c.Start, Metadata: a.metadata}, true
}

func (always) Committed(oona.Claim, oona.Commit, error) {}

// BenchmarkCommits reads preloaded messages of 1 kB, acking each: with deferred
// commits every second, and with Watermill's subscriber and sarama's automatic
// commits every second, whose messages carry the same metadata. The ratio of
// the two, in one run, is what deferring costs.
func BenchmarkCommits(b *testing.B) {
	broker, err := embedded.Start(b.Context(), embedded.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	cfg := bus.Config{Brokers: broker.Addrs, ClientID: "bench"}
	const preloaded, partitions = 200_000, 4
	topic := unique("bench")
	if _, err := bus.ApplyTopics(b.Context(), cfg, []oona.TopicSpec{{Name: topic, Partitions: partitions}}); err != nil {
		b.Fatal(err)
	}
	preload(b, cfg, topic, preloaded, partitions)

	b.Run("deferred", func(b *testing.B) {
		for b.Loop() {
			s, err := bus.NewGroupSubscriber(cfg, bus.GroupOptions{Group: unique("deferred")}, always{string(make([]byte, 2000))}, discard())
			if err != nil {
				b.Fatal(err)
			}
			drain(b, s, topic, preloaded)
		}
		b.ReportMetric(float64(preloaded*b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("automatic", func(b *testing.B) {
		for b.Loop() {
			settings := sarama.NewConfig()
			settings.Consumer.Return.Errors = true
			settings.Consumer.Offsets.Initial = sarama.OffsetOldest
			settings.Consumer.Offsets.AutoCommit.Interval = time.Second
			settings.Consumer.Fetch.Default = 8 << 20
			s, err := kafka.NewSubscriber(kafka.SubscriberConfig{
				Brokers: broker.Addrs, ConsumerGroup: unique("automatic"), Unmarshaler: noting{}, OverwriteSaramaConfig: settings,
			}, watermill.NopLogger{})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, s, topic, preloaded)
		}
		b.ReportMetric(float64(preloaded*b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}

// noting makes messages that know where they stood, as this package's do.
type noting struct{}

func (noting) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	msg := message.NewMessage("", r.Value)
	msg.Metadata[oona.MetaPartition] = strconv.Itoa(int(r.Partition))
	msg.Metadata[oona.MetaOffset] = strconv.FormatInt(r.Offset, 10)
	msg.Metadata[oona.MetaTimestamp] = strconv.FormatInt(r.Timestamp.UnixMicro(), 10)
	msg.Metadata[oona.MetaClaim] = "claim"
	return msg, nil
}

func preload(b *testing.B, cfg bus.Config, topic string, messages, partitions int) {
	b.Helper()
	p, err := bus.NewPublisher(cfg, bus.PublisherOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	payload := make([]byte, 1000)
	batch := make([]*message.Message, 1000)
	for sent := 0; sent < messages; sent += len(batch) {
		for i := range batch {
			batch[i] = newMessage(string(payload), oona.MetaToPartition, string(rune('0'+i%partitions)))
		}
		if err := p.Publish(topic, batch...); err != nil {
			b.Fatal(err)
		}
	}
}

// drain reads and acks so many messages, and closes the subscriber. The time
// until the first one, in which a group forms, does not count.
func drain(b *testing.B, s message.Subscriber, topic string, messages int) {
	b.Helper()
	b.StopTimer()
	in, err := s.Subscribe(b.Context(), topic)
	if err != nil {
		b.Fatal(err)
	}
	first := <-in
	b.StartTimer()
	first.Ack()
	for range messages - 1 {
		msg := <-in
		msg.Ack()
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}
