package kafka_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// always is an owner whose consumers always have a commit, with metadata as large as a
// busy engine's.
type always struct{ metadata string }

func (o always) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, _ := a.Resume()
	return from, alwaysDue{bus.Commit{Offset: from, Metadata: o.metadata}}, nil
}

type alwaysDue struct{ commit bus.Commit }

func (d alwaysDue) Commit() (bus.Commit, bool) { return d.commit, true }
func (alwaysDue) Committed(bus.Commit, error)  {}
func (alwaysDue) End(int64)                    {}
func (alwaysDue) Revoke()                      {}

// BenchmarkCommits reads preloaded messages of 1 kB and acks each of them, in pairs of
// runs: with deferred commits every second, and with Watermill's subscriber and sarama's
// automatic commits every second, with the same metadata. The order within a pair
// alternates. It reports the medians over the pairs of the ratio of deferred to automatic
// commits, for the wall clock and for the CPU time of the process, and their ranges. If
// OONA_KAFKA is empty, the CPU time of the broker is included on both sides.
func BenchmarkCommits(b *testing.B) {
	cfg := kafka.Config{Brokers: strings.Split(os.Getenv("OONA_KAFKA"), ","), ClientID: "bench"}
	if os.Getenv("OONA_KAFKA") == "" {
		broker, err := embedded.Start(b.Context(), embedded.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer broker.Close()
		cfg.Brokers = broker.Addrs
	}
	const preloaded, partitions, pairs = 200_000, 4, 9
	topic := unique("bench")
	if _, err := kafka.New(cfg, nil).Apply(b.Context(), []oona.TopicSpec{{Name: topic, Partitions: partitions}}); err != nil {
		b.Fatal(err)
	}
	preload(b, cfg, topic, preloaded, partitions)
	deferred := func() cost { return drain(b, deferring(b, cfg), topic, preloaded) }
	automatic := func() cost { return drain(b, automatically(b, cfg), topic, preloaded) }
	deferred()
	automatic() // warm up

	for b.Loop() {
		var wall, cpu []float64
		for i := range pairs {
			var d, a cost
			if i%2 == 0 {
				d = deferred()
				a = automatic()
			} else {
				a = automatic()
				d = deferred()
			}
			wall = append(wall, d.wall.Seconds()/a.wall.Seconds())
			cpu = append(cpu, d.cpu.Seconds()/a.cpu.Seconds())
			b.Logf("deferred %.0f, automatic %.0f ns/message; CPU %.0f, %.0f",
				d.perMessage(d.wall, preloaded), a.perMessage(a.wall, preloaded), d.perMessage(d.cpu, preloaded), a.perMessage(a.cpu, preloaded))
		}
		for what, ratios := range map[string][]float64{"wall": wall, "cpu": cpu} {
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], what+":deferred/auto")
			b.ReportMetric(ratios[0], what+":least")
			b.ReportMetric(ratios[len(ratios)-1], what+":most")
		}
	}
	b.ReportMetric(0, "ns/op") // the time per operation has no meaning here
}

// cost is the cost of reading, of this process.
type cost struct{ wall, cpu time.Duration }

func (cost) perMessage(d time.Duration, messages int) float64 {
	return float64(d.Nanoseconds()) / float64(messages)
}

func deferring(b *testing.B, cfg kafka.Config) message.Subscriber {
	b.Helper()
	s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: unique("deferred")}, always{strings.Repeat("x", 2000)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func automatically(b *testing.B, cfg kafka.Config) message.Subscriber {
	b.Helper()
	settings := sarama.NewConfig()
	settings.Consumer.Return.Errors = true
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Interval = time.Second
	settings.Consumer.Fetch.Default = 8 << 20
	s, err := wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers: cfg.Brokers, ConsumerGroup: unique("automatic"), Unmarshaler: noting{}, OverwriteSaramaConfig: settings,
	}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// noting makes messages with positions, as this package does.
type noting struct{}

func (noting) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	msg := message.NewMessage("", r.Value)
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Appended: oona.MicrosOf(r.Timestamp)}))
	return msg, nil
}

func preload(b *testing.B, cfg kafka.Config, topic string, messages, partitions int) {
	b.Helper()
	p, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	payload := make([]byte, 1000)
	batch := make([]*message.Message, 1000)
	for sent := 0; sent < messages; sent += len(batch) {
		for i := range batch {
			batch[i] = newMessage(string(payload), toPartition, string(rune('0'+i%partitions)))
		}
		if err := p.Publish(context.Background(), topic, batch...); err != nil {
			b.Fatal(err)
		}
	}
}

// drain reads and acks n messages, and closes the subscriber. The time until the first
// message, in which the group forms, does not count.
func drain(b *testing.B, s message.Subscriber, topic string, messages int) cost {
	b.Helper()
	in, err := s.Subscribe(b.Context(), topic)
	if err != nil {
		b.Fatal(err)
	}
	first := <-in
	began, used := time.Now(), cpuTime(b)
	first.Ack()
	for range messages - 1 {
		msg := <-in
		msg.Ack()
	}
	c := cost{time.Since(began), cpuTime(b) - used}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return c
}

// cpuTime returns the CPU time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
