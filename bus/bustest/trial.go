package bustest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// longest limits every wait. No test waits for it to pass, so it is long enough for a machine
// that stops for a minute.
const longest = 5 * time.Minute

// trial is one test on one bus.
type trial struct {
	*testing.T
	Harness
}

var names atomic.Int64

// unique returns a name that no other test and no earlier run has.
func unique(what string) string {
	return fmt.Sprintf("bustest.%s.%d-%d", what, time.Now().UnixNano(), names.Add(1))
}

// topic creates a topic and returns its name.
func (t *trial) topic(spec oona.TopicSpec) string {
	t.Helper()
	spec.Name = unique("topic")
	t.createTopic(t.T, spec)
	return spec.Name
}

func (t *trial) partitions(n int32) string {
	t.Helper()
	return t.topic(oona.TopicSpec{Partitions: n})
}

func (t *trial) closeAtEnd(c interface{ Close() error }) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (t *trial) publisher(opts bus.PublisherOptions) bus.PinnedPublisher {
	t.Helper()
	p := t.newPublisher(t.T, opts)
	t.closeAtEnd(p)
	return p
}

// newReader returns a reader, which the caller closes.
func (t *trial) newReader(from time.Time) bus.Reader {
	t.Helper()
	r, err := t.Bus.Reader(bus.ReaderOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (t *trial) reader(from time.Time) bus.Reader {
	t.Helper()
	r := t.newReader(from)
	t.closeAtEnd(r)
	return r
}

// member returns a member that commits often.
func (t *trial) member(group string, o bus.Owner) bus.Member {
	t.Helper()
	m := t.newMember(t.T, bus.MemberOptions{Group: group, CommitEvery: 50 * time.Millisecond}, o)
	t.closeAtEnd(m)
	return m
}

func (t *trial) subscribe(s message.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func (t *trial) publish(p bus.Publisher, topic string, messages ...*message.Message) {
	t.Helper()
	if err := p.Publish(context.Background(), topic, messages...); err != nil {
		t.Fatal(err)
	}
}

// fill publishes messages "0" to "n"-1 to a partition.
func (t *trial) fill(topic string, partition int32, n int) {
	t.Helper()
	t.publish(t.publisher(bus.PublisherOptions{}), topic, numbered(0, n, partition)...)
}

// ends returns the offset after the last record of each partition.
func (t *trial) ends(topic string) (ends []int64) {
	t.Helper()
	for _, e := range t.extents(topic) {
		ends = append(ends, e.End)
	}
	return ends
}

func (t *trial) extents(topic string) []bus.Extent {
	t.Helper()
	extents, err := t.Bus.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return extents[topic]
}

// failed returns the indexes of the messages that an error of Publish names.
func failed(err error) (indexes []int) {
	if failed, ok := errors.AsType[*bus.PublishError](err); ok {
		for _, f := range failed.Failed {
			indexes = append(indexes, f.Index)
		}
	}
	return indexes
}

// next returns the next message of a subscription.
func (t *trial) next(messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-messages:
		if !open {
			t.Fatal("the subscription has ended")
		}
		return msg
	case <-time.After(longest):
		t.Fatal("no message came")
	}
	return nil
}

// take acks the next n messages and returns their payloads.
func (t *trial) take(messages <-chan *message.Message, n int) (payloads []string) {
	t.Helper()
	for range n {
		msg := t.next(messages)
		payloads = append(payloads, string(msg.Payload))
		msg.Ack()
	}
	return payloads
}

// read returns the first n messages of a topic.
func (t *trial) read(topic string, n int) (messages []*message.Message) {
	t.Helper()
	incoming := t.subscribe(t.reader(time.Time{}), topic)
	for range n {
		msg := t.next(incoming)
		messages = append(messages, msg)
		msg.Ack()
	}
	return messages
}

// consume acks everything until the subscription ends.
func (t *trial) consume(messages <-chan *message.Message) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range messages {
			msg.Ack()
		}
	}()
	t.Cleanup(func() { <-done })
}

func (t *trial) position(msg *message.Message) bus.Position {
	t.Helper()
	at, err := bus.PositionOf(msg)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// eventually waits until ok is true.
func (t *trial) eventually(what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(longest); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// numbered returns messages "from" to "to"-1 for a partition.
func numbered(from, to int, partition int32) (messages []*message.Message) {
	for i := from; i < to; i++ {
		messages = append(messages, directed(strconv.Itoa(i), partition))
	}
	return messages
}

func directed(payload string, partition int32) *message.Message {
	return bus.NewMessage([]byte(payload), bus.Target{Partition: partition, Directed: true})
}

func keyed(payload, key string) *message.Message {
	return bus.NewMessage([]byte(payload), bus.Target{Key: []byte(key)})
}

func unkeyed(payload string) *message.Message {
	return bus.NewMessage([]byte(payload), bus.Target{})
}
