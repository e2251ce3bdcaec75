package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// Partitions are added while a pinned publisher publishes. The publisher detects this by itself, and no
// key goes to another partition than before.
func TestPinnedPartitions(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		const before, after, keys = 3, 5, 50
		topic := makeTopic(t, cfg, before, false)
		p := newPublisher(t, cfg, bus.PublisherOptions{Pin: topic})
		published := 0
		round := func() error {
			var moved *bus.PartitionsError
			for k := range keys {
				err := p.Publish(context.Background(), topic, newMessage("x", withKey, fmt.Sprint("key", k)))
				if errors.As(err, &moved) {
					return err
				}
				if err != nil {
					t.Fatal(err)
				}
				published++
			}
			return nil
		}
		if err := errors.Join(round(), p.Pinned()); err != nil {
			t.Fatal(err)
		}
		if err := newAdmin(t, cfg).CreatePartitions(topic, after, nil, false); err != nil {
			t.Fatal(err)
		}
		var refusal error
		eventually(t, "the publisher refuses", func() bool { refusal = round(); return refusal != nil })
		var moved *bus.PartitionsError
		if !errors.As(refusal, &moved) || moved.Topic != topic || moved.Had != before || moved.Has != after {
			t.Errorf("refused with %v", refusal)
		}
		if err := p.Pinned(); !errors.As(err, &moved) {
			t.Errorf("Pinned is %v", err)
		}
		if err := p.Publish(context.Background(), topic, newMessage("x", toPartition, "0")); !errors.As(err, &moved) {
			t.Errorf("a directed message is answered %v", err)
		}
		if other := makeTopic(t, cfg, 2, false); p.Publish(context.Background(), other, newMessage("x", withKey, "k")) != nil {
			t.Error("another topic is refused, too")
		}

		murmur2 := sarama.NewMurmur2Partitioner(topic)
		for _, msg := range readAll(t, cfg, topic, published) {
			want, err := murmur2.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(string(position(t, msg).Key))}, before)
			if got := int64(position(t, msg).Partition); err != nil || got != int64(want) {
				t.Fatalf("%s went to partition %d, want %d (%v)", string(position(t, msg).Key), got, want, err)
			}
		}
		ends, err := kafka.New(cfg, nil).Extents(t.Context(), topic)
		if err != nil || len(ends[topic]) != after || ends[topic][3].End+ends[topic][4].End != 0 {
			t.Errorf("the partitions end at %v (%v), want %d and nothing in the new ones", ends, err, after)
		}
	})
}

// While the topic does not exist, publishing fails as on a bus that cannot be reached.
// After the topic was created again with the same number of partitions, publishing works
// again.
func TestPinnedTopicMadeAgain(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		const partitions = 3
		spec := oona.TopicSpec{Name: makeTopic(t, cfg, partitions, false), Partitions: partitions}
		p := newPublisher(t, cfg, bus.PublisherOptions{Pin: spec.Name, DeliveryTimeout: 300 * time.Millisecond})
		message := func() error { return p.Publish(t.Context(), spec.Name, newMessage("x", withKey, "k")) }
		var moved *bus.PartitionsError
		remove := func() {
			t.Helper()
			if err := newAdmin(t, cfg).DeleteTopic(spec.Name); err != nil {
				t.Fatal(err)
			}
			eventually(t, "publishing fails", func() bool {
				err := message()
				if errors.As(err, &moved) {
					t.Fatalf("a topic that does not exist has other partitions: %v", err)
				}
				return err != nil
			})
			if err := p.Pinned(); err != nil {
				t.Errorf("Pinned is %v", err)
			}
		}
		remake := func() {
			t.Helper()
			if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{spec}); err != nil {
				t.Fatal(err)
			}
		}
		remove()
		remake()
		eventually(t, "publishing works again", func() bool { return message() == nil })
		remove()
		spec.Partitions++
		remake()
		eventually(t, "publishing is refused", func() bool { return errors.As(message(), &moved) })
		if moved.Had != partitions || moved.Has != spec.Partitions {
			t.Errorf("refused with %v", moved)
		}
	})
}

// The refusal is permanent. It also holds for connections that are made later.
func TestPinHoldsAcrossConnections(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{Pin: topic})
	publish(t, p, topic, newMessage("x"))
	if err := newAdmin(t, cfg).CreatePartitions(topic, 2, nil, false); err != nil {
		t.Fatal(err)
	}
	broker.down()
	broker.up()
	var moved *bus.PartitionsError
	eventually(t, "the publisher refuses", func() bool { return errors.As(p.Publish(context.Background(), topic, newMessage("x")), &moved) })
}

func TestPinNeedsItsTopic(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	_, err := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, nil).Publisher(bus.PublisherOptions{Pin: "no-such"})
	if !errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("%v", err)
	}
}
