package kafka_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

var _ message.Subscriber = (*kafka.Reader)(nil)

func TestReaderKnowsWhereItIs(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 3, false)
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, topic, numbered(0, 10, 0)...)
		publish(t, p, topic, numbered(0, 5, 1)...)
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 4}); err != nil {
			t.Fatal(err)
		}
		reader := newReader(t, cfg, kafka.ReaderOptions{})
		if ranges := reader.Ranges(topic); ranges != nil {
			t.Errorf("before Subscribe: %+v", ranges)
		}
		messages := subscribe(t, reader, topic)
		ranges := reader.Ranges(topic)
		for i, want := range [][2]int64{{4, 10}, {0, 5}, {0, 0}} {
			if c := ranges[i]; c.Partition != int32(i) || c.From != want[0] || c.End != want[1] {
				t.Errorf("%+v; want from %d to %d", c, want[0], want[1])
			}
		}
		for range 11 {
			msg := next(t, messages)
			if at := position(t, msg); at.Topic != topic || at.Consumer != nil || at.Offset < ranges[at.Partition].From {
				t.Errorf("position %+v", at)
			}
			msg.Ack()
		}
		publish(t, p, topic, newMessage("new", toPartition, "2"))
		if got := take(t, messages, 1); got[0] != "new" {
			t.Errorf("%q", got)
		}
		if _, err := reader.Subscribe(t.Context(), topic); err == nil {
			t.Error("the same topic was subscribed to twice")
		}
	})
}

// Each partition begins at its first record at or after the time, or at its
// end.
func TestReaderFromATime(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 3, false)
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		at := func(partition string, minute int) *message.Message {
			when := time.Date(2026, 11, 1, 12, minute, 0, 0, time.UTC)
			return newMessage(strconv.Itoa(minute), toPartition, partition, withTime, strconv.FormatInt(when.UnixMicro(), 10))
		}
		for minute := range 10 { // one batch each, as Kafka looks times up by batch and then record
			publish(t, p, topic, at("0", minute))
			if minute < 5 {
				publish(t, p, topic, at("1", minute))
			}
		}
		reader := newReader(t, cfg, kafka.ReaderOptions{From: time.Date(2026, 11, 1, 12, 7, 0, 0, time.UTC)})
		messages := subscribe(t, reader, topic)
		var starts []int64
		for _, c := range reader.Ranges(topic) {
			starts = append(starts, c.From)
		}
		if !slices.Equal(starts, []int64{7, 5, 0}) {
			t.Errorf("begins at %v", starts)
		}
		if got := take(t, messages, 3); !slices.Equal(got, []string{"7", "8", "9"}) {
			t.Errorf("%q", got)
		}
		publish(t, p, topic, newMessage("late", toPartition, "1"))
		if got := take(t, messages, 1); got[0] != "late" {
			t.Errorf("%q", got)
		}
	})
}

// The reader goes on at the next record when the broker comes back: it skips
// none and repeats none, also the one that was in a handler's hands.
func TestLogReaderResumes(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 2, false)
	p := newPublisher(t, cfg, kafka.PublisherOptions{Patience: time.Hour})
	publish(t, p, topic, numbered(0, 10, 0)...)
	messages := subscribe(t, newReader(t, cfg, kafka.ReaderOptions{}), topic)
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

func TestLogReaderEnds(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 2, false)
	publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 3, 0)...)
	reader := newReader(t, cfg, kafka.ReaderOptions{})
	messages := subscribe(t, reader, topic)
	next(t, messages) // and neither acks nor nacks
	if err := errors.Join(reader.Close(), reader.Close()); err != nil {
		t.Error(err)
	}
	if msg, open := <-messages; open {
		t.Errorf("%s came after Close", msg.Payload)
	}
	if _, err := reader.Subscribe(t.Context(), "other"); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestLogReaderOfUnknownTopic(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	reader := newReader(t, kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, kafka.ReaderOptions{})
	if _, err := reader.Subscribe(t.Context(), "unknown"); err == nil {
		t.Error("an unknown topic was subscribed to")
	}
	if ranges := reader.Ranges("unknown"); ranges != nil {
		t.Errorf("%+v", ranges)
	}
}
