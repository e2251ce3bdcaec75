package kafka_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

var _ message.Subscriber = (*kafka.Reader)(nil)

// When the broker is up again, the reader continues with the next record. It skips and repeats no
// record, not even the one that a handler had.
func TestLogReaderResumes(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 2, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	publish(t, p, topic, numbered(0, 10, 0)...)
	messages := subscribe(t, newReader(t, cfg, bus.ReaderOptions{}), topic)
	take(t, messages, 9)
	inHand := next(t, messages)
	for round := 1; round <= 2; round++ {
		broker.down()
		broker.up()
		publish(t, p, topic, numbered(10*round, 10*round+10, 0)...)
		inHand.Ack()
		got := take(t, messages, 9)
		inHand = next(t, messages)
		got = append(got, string(inHand.Payload))
		for i, payload := range got {
			if payload != strconv.Itoa(10*round+i) {
				t.Fatalf("after outage %d came %q", round, got)
			}
		}
	}
	inHand.Ack()
}

// Partitions that are added to a topic are read, too, if that is asked for.
func TestReaderReadsAddedPartitions(t *testing.T) {
	t.Parallel()
	_, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	reader := newReader(t, cfg, bus.ReaderOptions{AddedEvery: 10 * time.Millisecond})
	messages := subscribe(t, reader, topic)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	publish(t, p, topic, numbered(0, 2, 0)...)
	got := take(t, messages, 2)
	for has := int32(2); has <= 3; has++ {
		if err := newAdmin(t, cfg).CreatePartitions(topic, has, nil, false); err != nil {
			t.Fatal(err)
		}
		added := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
		publish(t, added, topic, numbered(int(has)*10, int(has)*10+2, int(has)-1)...)
		got = append(got, take(t, messages, 2)...)
	}
	publish(t, p, topic, numbered(2, 3, 0)...)
	got = append(got, take(t, messages, 1)...)
	if want := []string{"0", "1", "20", "21", "30", "31", "2"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if msg, open := <-messages; open {
		t.Errorf("after Close: %s", msg.Payload)
	}
}
