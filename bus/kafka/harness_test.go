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
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// patience bounds every wait of these tests; none waits for it in vain.
const patience = 40 * time.Second

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// brokers calls test with each bus that there is: the embedded broker, and the
// Kafka that OONA_KAFKA names (make kafka-up), which OONA_REQUIRE_KAFKA=1
// demands.
func brokers(t *testing.T, test func(t *testing.T, cfg kafka.Config)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		broker := startEmbedded(t, embedded.Options{})
		test(t, kafka.Config{Brokers: broker.Addrs, ClientID: "bus-test"})
	})
	t.Run("kafka", func(t *testing.T) {
		addresses := os.Getenv("OONA_KAFKA")
		if addresses == "" && os.Getenv("OONA_REQUIRE_KAFKA") == "1" {
			t.Fatal("OONA_REQUIRE_KAFKA=1, and OONA_KAFKA names no brokers: run make kafka-up and set it to the addresses that it prints")
		}
		if addresses == "" {
			t.Skip("SKIPPED, NOT TESTED ON REAL KAFKA: OONA_KAFKA is empty; run make kafka-up and set it to the addresses that it prints")
		}
		test(t, kafka.Config{Brokers: strings.Split(addresses, ","), ClientID: "bus-test"})
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

// unique returns a name that no other test, and no earlier run, has.
func unique(what string) string {
	return fmt.Sprintf("bus-test.%s.%d-%d", what, time.Now().UnixNano(), topics.Add(1))
}

// makeTopic makes a topic and returns its name.
func makeTopic(t *testing.T, cfg kafka.Config, partitions int32, appendTime bool) string {
	t.Helper()
	spec := oona.TopicSpec{Name: unique("topic"), Partitions: partitions, AppendTime: appendTime}
	if _, err := kafka.ApplyTopics(t.Context(), cfg, []oona.TopicSpec{spec}); err != nil {
		t.Fatal(err)
	}
	return spec.Name
}

// newPublisher returns a publisher that waits for a machine under load, unless
// opts say otherwise.
func newPublisher(t *testing.T, cfg kafka.Config, opts kafka.PublisherOptions) *kafka.Publisher {
	t.Helper()
	if opts.Patience == 0 {
		opts.Patience = time.Minute
	}
	p, err := kafka.NewPublisher(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newMessage(payload string, metadata ...string) *message.Message {
	msg := message.NewMessage("", []byte(payload))
	for i := 0; i < len(metadata); i += 2 {
		msg.Metadata[metadata[i]] = metadata[i+1]
	}
	return msg
}

// numbered returns messages "from" to "to"-1, without keys, for a partition.
func numbered(from, to, partition int) (messages []*message.Message) {
	for i := from; i < to; i++ {
		messages = append(messages, newMessage(strconv.Itoa(i), oona.MetaToPartition, strconv.Itoa(partition)))
	}
	return messages
}

func publish(t *testing.T, p *kafka.Publisher, topic string, messages ...*message.Message) {
	t.Helper()
	if err := p.Publish(topic, messages...); err != nil {
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
	case <-time.After(patience):
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
	reader := newReader(t, cfg, kafka.LogReaderOptions{})
	incoming := subscribe(t, reader, topic)
	for range count {
		msg := next(t, incoming)
		messages = append(messages, msg)
		msg.Ack()
	}
	return messages
}

func newReader(t *testing.T, cfg kafka.Config, opts kafka.LogReaderOptions) *kafka.LogReader {
	t.Helper()
	reader, err := kafka.NewLogReader(cfg, opts, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	})
	return reader
}

func subscribe(t *testing.T, s message.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func metaInt(t *testing.T, msg *message.Message, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(msg.Metadata[name], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// uncommitting is an owner's part that has nothing to commit, and does not ask
// where partitions end.
type uncommitting struct{}

func (uncommitting) Commit(oona.Claim) (oona.Commit, bool) {
	return oona.Commit{}, false
}
func (uncommitting) Committed(oona.Claim, oona.Commit, error) {}
func (uncommitting) Ends(oona.Claim, int64)                   {}

// owner notes what is opened and closed.
type owner struct {
	uncommitting
	events  chan event
	fail    atomic.Int64 // how many calls of Open fail
	claimed atomic.Int64 // partitions that are open
}

type event struct {
	kind  string // open, refused, close
	claim oona.Claim
}

var errRefused = errors.New("not now")

func newOwner() *owner { return &owner{events: make(chan event, 1000)} }

func (o *owner) Open(_ context.Context, c oona.Claim) error {
	if o.fail.Add(-1) >= 0 {
		o.events <- event{"refused", c}
		return errRefused
	}
	o.claimed.Add(1)
	o.events <- event{"open", c}
	return nil
}

func (o *owner) Close(c oona.Claim) {
	o.claimed.Add(-1)
	o.events <- event{"close", c}
}

// open returns how many partitions are.
func (o *owner) open() int { return int(o.claimed.Load()) }

// await returns the next count events, which must be of a kind.
func (o *owner) await(t *testing.T, kind string, count int) (claims []oona.Claim) {
	t.Helper()
	for range count {
		select {
		case e := <-o.events:
			if e.kind != kind {
				t.Fatalf("%s of %+v, want %s", e.kind, e.claim, kind)
			}
			claims = append(claims, e.claim)
		case <-time.After(patience):
			t.Fatalf("%d claims of %d: %s", len(claims), count, kind)
		}
	}
	return claims
}

func newGroup(t *testing.T, cfg kafka.Config, group string, o kafka.Owner) *kafka.GroupSubscriber {
	t.Helper()
	s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, CommitEvery: 50 * time.Millisecond}, o, discard())
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
