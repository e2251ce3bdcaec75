package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// waitLimit bounds every wait. It passes only in a test that fails, so it is long enough for a
// machine that stops for a minute.
const waitLimit = 5 * time.Minute

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// brokers calls test with the embedded broker, and with the Kafka that OONA_KAFKA names
// (make kafka-up). OONA_REQUIRE_KAFKA=1 makes the second one mandatory.
func brokers(t *testing.T, test func(t *testing.T, cfg kafka.Config)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		broker := startEmbedded(t, embedded.Options{})
		test(t, kafka.Patient(kafka.Config{Brokers: broker.Addrs, ClientID: "bus-test"}))
	})
	realKafka(t, test)
}

// realKafka calls test with the Kafka that OONA_KAFKA names.
func realKafka(t *testing.T, test func(t *testing.T, cfg kafka.Config)) {
	t.Run("kafka", func(t *testing.T) {
		addresses := os.Getenv("OONA_KAFKA")
		if addresses == "" && os.Getenv("OONA_REQUIRE_KAFKA") == "1" {
			t.Fatal("OONA_REQUIRE_KAFKA=1, and OONA_KAFKA names no brokers: run make kafka-up and set it to the addresses that it prints")
		}
		if addresses == "" {
			t.Skip("SKIPPED, NOT TESTED ON REAL KAFKA: OONA_KAFKA is empty; run make kafka-up and set it to the addresses that it prints")
		}
		test(t, kafka.Patient(kafka.Config{Brokers: strings.Split(addresses, ","), ClientID: "bus-test"}))
	})
}

func startEmbedded(t *testing.T, opts embedded.Options) *embedded.Broker {
	t.Helper()
	broker, err := embedded.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	return broker
}

var topics atomic.Int64

// unique returns a name that no other test and no earlier run has.
func unique(what string) string {
	return fmt.Sprintf("bus-test.%s.%d-%d", what, time.Now().UnixNano(), topics.Add(1))
}

// makeTopic makes a topic and returns its name.
func makeTopic(t *testing.T, cfg kafka.Config, partitions int32, appendTime bool) string {
	t.Helper()
	spec := oona.TopicSpec{Name: unique("topic"), Partitions: partitions, AppendTime: appendTime}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{spec}); err != nil {
		t.Fatal(err)
	}
	return spec.Name
}

// newPublisher returns a publisher. Unless opts set others, its timeouts are long enough for a busy
// machine.
func newPublisher(t *testing.T, cfg kafka.Config, opts bus.PublisherOptions) *kafka.Publisher {
	t.Helper()
	if opts.DeliveryTimeout == 0 {
		opts.DeliveryTimeout = 10 * time.Minute
	}
	p, err := kafka.New(cfg, nil).Publisher(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p.(*kafka.Publisher)
}

// Attributes of newMessage that are not headers.
const (
	withKey     = "$key"
	withTime    = "$time"         // time of the message in microseconds
	toPartition = "$to-partition" // number of its partition
)

// newMessage returns a message with the attributes.
func newMessage(payload string, attributes ...string) *message.Message {
	headers := message.Metadata{}
	var to bus.Target
	for i := 0; i < len(attributes); i += 2 {
		name, value := attributes[i], attributes[i+1]
		switch name {
		case withKey:
			to.Key = []byte(value)
		case withTime:
			to.Time = oona.Micros(number(value))
		case toPartition:
			to.Partition, to.Directed = int32(number(value)), true
		default:
			headers[name] = value
		}
	}
	msg := bus.NewMessage([]byte(payload), to)
	msg.Metadata = headers
	return msg
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// numbered returns messages "from" to "to"-1, without keys, for a partition.
func numbered(from, to, partition int) (messages []*message.Message) {
	for i := from; i < to; i++ {
		messages = append(messages, newMessage(strconv.Itoa(i), toPartition, strconv.Itoa(partition)))
	}
	return messages
}

func publish(t *testing.T, p *kafka.Publisher, topic string, messages ...*message.Message) {
	t.Helper()
	if err := p.Publish(context.Background(), topic, messages...); err != nil {
		t.Fatal(err)
	}
}

// next returns the next message of a subscription.
func next(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-messages:
		if !open {
			t.Fatal("the subscription has ended")
		}
		return msg
	case <-time.After(waitLimit):
		t.Fatal("no message came")
	}
	return nil
}

// take acks the next count messages and returns their payloads in order.
func take(t *testing.T, messages <-chan *message.Message, count int) (payloads []string) {
	t.Helper()
	for range count {
		msg := next(t, messages)
		payloads = append(payloads, string(msg.Payload))
		msg.Ack()
	}
	return payloads
}

// readAll reads count messages of a topic from its beginning, without a group.
func readAll(t *testing.T, cfg kafka.Config, topic string, count int) (messages []*message.Message) {
	t.Helper()
	reader := newReader(t, cfg, bus.ReaderOptions{})
	incoming := subscribe(t, reader, topic)
	for range count {
		msg := next(t, incoming)
		messages = append(messages, msg)
		msg.Ack()
	}
	return messages
}

func newReader(t *testing.T, cfg kafka.Config, opts bus.ReaderOptions) *kafka.Reader {
	t.Helper()
	reader, err := kafka.New(cfg, discard()).Reader(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	})
	return reader.(*kafka.Reader)
}

func subscribe(t *testing.T, s message.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func position(t *testing.T, msg *message.Message) bus.Position {
	t.Helper()
	at, err := bus.PositionOf(msg)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// assignment is an assignment of an owner.
type assignment struct {
	bus.Assignment
	owner *owner
	from  int64
}

// consumer is the consumer of an assignment. It has nothing to commit.
type consumer struct{ of *assignment }

func (consumer) Commit() (bus.Commit, bool)  { return bus.Commit{}, false }
func (consumer) Committed(bus.Commit, error) {}
func (consumer) End(int64)                   {}

func (c consumer) Revoke() {
	c.of.owner.held.Add(-1)
	c.of.owner.events <- event{"revoked", c.of}
}

// owner accepts its assignments, begins each at the commit, and records them.
type owner struct {
	events chan event
	fail   atomic.Int64 // number of calls of Assign that fail
	held   atomic.Int64 // number of partitions
}

type event struct {
	kind string // assigned, refused, revoked
	of   *assignment
}

var errRefused = errors.New("not now")

func newOwner() *owner { return &owner{events: make(chan event, 1000)} }

func (o *owner) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := o.take(a)
	return from, consumer{of}, err
}

func (o *owner) take(a bus.Assignment) (int64, *assignment, error) {
	from, held := a.Resume()
	c := &assignment{a, o, from}
	switch {
	case o.fail.Add(-1) >= 0:
		o.events <- event{"refused", c}
		return 0, nil, errRefused
	case !held && !a.Settled:
		return 0, nil, bus.ErrShort
	}
	o.held.Add(1)
	o.events <- event{"assigned", c}
	return from, c, nil
}

// holds returns the number of partitions of the owner.
func (o *owner) holds() int { return int(o.held.Load()) }

// await returns the next count events, which must be of a kind.
func (o *owner) await(t *testing.T, kind string, count int) (all []*assignment) {
	t.Helper()
	for range count {
		select {
		case e := <-o.events:
			if e.kind != kind {
				t.Fatalf("%s: %+v, want %s", e.kind, e.of.Assignment, kind)
			}
			all = append(all, e.of)
		case <-time.After(waitLimit):
			t.Fatalf("%d of %d were %s", len(all), count, kind)
		}
	}
	return all
}

func newGroup(t *testing.T, cfg kafka.Config, group string, o bus.Owner) bus.Member {
	t.Helper()
	s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: group, CommitEvery: 50 * time.Millisecond}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
