package kafka_test

import (
	"context"
	"errors"
	"maps"
	"slices"
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

var _ message.Subscriber = (*kafka.Member)(nil)

// A group that has read and acked everything, and whose owner has nothing to
// commit, has committed nothing, and begins again at the oldest record.
func TestAckCommitsNothing(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		const perPartition, partitions = 500, 2
		topic, group := makeTopic(t, cfg, partitions, false), unique("group")
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		for partition := range partitions {
			publish(t, p, topic, numbered(0, perPartition, partition)...)
		}
		for range 2 {
			o := newOwner()
			s := newGroup(t, cfg, group, o)
			messages := subscribe(t, s, topic)
			var due [partitions]int64
			for range partitions * perPartition {
				msg := next(t, messages)
				partition := int64(position(t, msg).Partition)
				if offset := position(t, msg).Offset; offset != due[partition] || string(msg.Payload) != strconv.Itoa(int(offset)) {
					t.Fatalf("offset %d, %q where %d was due", offset, msg.Payload, due[partition])
				}
				due[partition]++
				msg.Ack()
			}
			for _, c := range o.await(t, "assigned", partitions) {
				if c.Topic != topic || c.from != 0 || c.LogEnd != perPartition {
					t.Errorf("claim %+v", c)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			o.await(t, "revoked", partitions)
			committed, err := newAdmin(t, cfg).ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1}})
			if err != nil {
				t.Fatal(err)
			}
			for partition := range int32(partitions) {
				if block := committed.GetBlock(topic, partition); block == nil || block.Offset != -1 {
					t.Errorf("partition %d: committed %+v", partition, block)
				}
			}
		}
	})
}

// The metadata of a message are the headers of its record, and the position is
// the bus's own: a header cannot forge it.
func TestGroupMessagesHaveTheirHeaders(t *testing.T) {
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, kafka.PublisherOptions{})
	publish(t, p, topic, newMessage("a", withKey, "key", "header", "1", "$offset", "from outside"))
	publish(t, p, topic, newMessage("b"))
	o := newOwner()
	messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
	c := o.await(t, "assigned", 1)[0]
	for i, want := range []struct {
		key     string
		headers message.Metadata
	}{
		{"key", message.Metadata{"header": "1", "$offset": "from outside"}},
		{"", message.Metadata{}},
	} {
		msg := next(t, messages)
		if !maps.Equal(msg.Metadata, want.headers) {
			t.Errorf("metadata %q, want %q", msg.Metadata, want.headers)
		}
		at := position(t, msg)
		if at.Topic != topic || at.Partition != 0 || at.Offset != int64(i) || at.Appended == 0 || string(at.Key) != want.key || at.Consumer != (consumer{c}) {
			t.Errorf("position %+v", at)
		}
		msg.Ack()
	}
}

// The claim of a quiet partition knows its end before anything is fetched, and
// where the log begins after retention.
func TestClaimKnowsTheLog(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 3, false)
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, topic, numbered(0, 10, 0)...)
		publish(t, p, topic, numbered(0, 10, 1)...)
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 4, 1: 10}); err != nil {
			t.Fatal(err)
		}
		o := newOwner()
		messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
		claims := o.await(t, "assigned", 3)
		slices.SortFunc(claims, func(a, b *assignment) int { return int(a.Partition - b.Partition) })
		for i, want := range [][2]int64{{4, 10}, {10, 10}, {0, 0}} {
			if c := claims[i]; c.Partition != int32(i) || c.from != want[0] || c.LogEnd != want[1] {
				t.Errorf("%+v; want from %d to %d", c, want[0], want[1])
			}
		}
		if got := take(t, messages, 6); got[0] != "4" || got[5] != "9" {
			t.Errorf("%q", got)
		}
	})
}

// Claims move to a member that joins: the first member's are closed, those that
// it keeps are opened anew, and every message belongs to a claim that is open.
func TestRebalance(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		const partitions = 4
		topic, group := makeTopic(t, cfg, partitions, false), unique("group")
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		first, second := newOwner(), newOwner()
		s := newGroup(t, cfg, group, first)
		consume(t, subscribe(t, s, topic))
		before := first.await(t, "assigned", partitions)
		publish(t, p, topic, numbered(0, 50, 0)...)

		consume(t, subscribe(t, newGroup(t, cfg, group, second), topic))
		for _, c := range first.await(t, "revoked", partitions) {
			if !slices.Contains(before, c) {
				t.Errorf("%+v was revoked, and not assigned", c.Assignment)
			}
		}
		kept := first.await(t, "assigned", partitions/2)
		moved := second.await(t, "assigned", partitions/2)
		var all []int32
		for _, c := range slices.Concat(kept, moved) {
			all = append(all, c.Partition)
		}
		slices.Sort(all)
		if !slices.Equal(all, []int32{0, 1, 2, 3}) {
			t.Errorf("partitions %v are assigned", all)
		}

		// The first leaves: what it had moves to the second.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		first.await(t, "revoked", partitions/2)
		second.await(t, "revoked", partitions/2)
		second.await(t, "assigned", partitions)
	})
}

// consume acks everything until the subscription ends.
func consume(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range messages {
			msg.Ack()
		}
	}()
	t.Cleanup(func() { <-done })
}

// The partitions are Open before their first message, and Close comes after the
// last one was acked, also when the subscriber closes with the message in a
// handler's hands.
func TestCloseWaitsForTheMessageInHand(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		var acked atomic.Bool
		o := &ordered{t: t, closedAfterAck: &acked}
		s := newGroup(t, cfg, unique("group"), o)
		messages := subscribe(t, s, topic)
		msg := next(t, messages)
		if c, ok := position(t, msg).Consumer.(*ordered); !ok || c != o || !o.assigned.Load() {
			t.Errorf("the message came under %+v", c)
		}
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		<-msg.Context().Done()             // the handler is told
		time.Sleep(200 * time.Millisecond) // a claim that did not wait would close now
		acked.Store(true)
		msg.Ack()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if !o.closed.Load() {
			t.Error("the claim was not closed before the subscriber was")
		}
		if extra, open := <-messages; open {
			t.Errorf("%s came after Close", extra.Payload)
		}
	})
}

// ordered is an owner and its only consumer.
type ordered struct {
	consumer
	t              *testing.T
	assigned       atomic.Bool
	closedAfterAck *atomic.Bool
	closed         atomic.Bool
}

func (o *ordered) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	o.assigned.Store(true)
	return a.LogStart, o, nil
}

func (o *ordered) Revoke() {
	if !o.closedAfterAck.Load() {
		o.t.Error("revoked while a handler had a message")
	}
	o.closed.Store(true)
}

// A nacked message comes again in place, and a handler that nacks for ever does
// not keep a partition that another member is to have.
func TestNack(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 3, 0)...)
		o := newOwner()
		s := newGroup(t, cfg, group, o)
		messages := subscribe(t, s, topic)
		take(t, messages, 1)
		for range 3 {
			msg := next(t, messages)
			if string(msg.Payload) != "1" || position(t, msg).Offset != 1 {
				t.Fatalf("came %q", msg.Payload)
			}
			msg.Nack()
		}
		o.await(t, "assigned", 1)
		nacking := make(chan struct{})
		go func() {
			defer close(nacking)
			for msg := range messages {
				msg.Nack()
			}
		}()
		other := newOwner()
		consume(t, subscribe(t, newGroup(t, cfg, group, other), topic))
		o.await(t, "revoked", 1) // one of both has the partition now
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-nacking
		other.await(t, "assigned", 1)
	})
}

// An owner that cannot open is asked again after a pause, nothing is handed out
// before, and other partitions go on.
func TestOpenIsTriedAgain(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 1, false)
	publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 3, 0)...)
	o := newOwner()
	o.fail.Store(2)
	messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
	began := time.Now()
	o.await(t, "refused", 2)
	opened := o.await(t, "assigned", 1)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("three attempts within %s", took)
	}
	msg := next(t, messages)
	if at := position(t, msg); at.Consumer != (consumer{opened[0]}) {
		t.Errorf("its consumer is %+v, want %+v", at.Consumer, opened[0])
	}
	msg.Ack()
	take(t, messages, 2)
}

// A refused claim that is lost is not closed, as it was never open.
func TestRefusedClaimIsNotClosed(t *testing.T) {
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 1, false)
	o := newOwner()
	o.fail.Store(1 << 30)
	s := newGroup(t, cfg, unique("group"), o)
	messages := subscribe(t, s, topic)
	o.await(t, "refused", 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-messages; open {
		t.Error("a message came of a claim that was refused")
	}
	close(o.events)
	for e := range o.events {
		if e.kind != "refused" {
			t.Errorf("%s: %+v", e.kind, e.of.Assignment)
		}
	}
}

// The group goes on when the broker comes back, from the oldest record.
func TestGroupSurvivesTheBroker(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, kafka.PublisherOptions{Patience: time.Hour})
	publish(t, p, topic, numbered(0, 3, 0)...)
	o := newOwner()
	messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
	take(t, messages, 3)
	broker.down()
	broker.up()
	publish(t, p, topic, newMessage("after"))
	for last := ""; last != "after"; {
		last = take(t, messages, 1)[0]
	}
}

func TestGroupNeedsAName(t *testing.T) {
	_, err := kafka.NewMember(kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}, kafka.MemberOptions{}, newOwner(), discard())
	var wrong *oona.FieldError
	if !errors.As(err, &wrong) || wrong.Field != "--group" {
		t.Errorf("%v", err)
	}
}

// What Kafka's client would refuse at the start is refused by Validate.
func TestGroupInstanceIsValidated(t *testing.T) {
	cfg := kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}
	for instance, want := range map[string]string{"": "", "aggregate-0": "", "a b": "--group-instance", strings.Repeat("x", 300): "--group-instance"} {
		options := kafka.MemberOptions{Group: "g", Instance: instance}
		var wrong *oona.FieldError
		err := options.Validate(cfg)
		if errors.As(err, &wrong); (err == nil) != (want == "") || wrong != nil && wrong.Field != want {
			t.Errorf("%q: %v", instance, err)
		}
		if _, failed := kafka.NewMember(cfg, options, newOwner(), discard()); want != "" && !errors.As(failed, &wrong) {
			t.Errorf("%q: the start says %v", instance, failed)
		}
	}
}
