package bustest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// RunWatermill runs Watermill's own suite with publishers and members of a bus behind an
// adapter. Members of a group share a topic, messages are kept, and messages with the
// same key keep their order while one member reads them. The adapter makes up for these
// differences:
//
//   - Publish has a context, so that a Publisher is no message.Publisher.
//   - The id of a message is not published: the adapter puts it in a header.
//   - Acks commit nothing: the adapter's consumer commits acked messages.
//   - A member subscribes once: the adapter makes a member for each Subscribe.
//   - Topics must be created: the adapter creates them when they are used.
//
// Left out are delivery exactly once; a subscriber that gets again what its group has
// read (NewSubscriberReceivesOldMessages); the context of the publisher's message
// (ContextPreserved); and a restart of the bus (RestartServiceCommand), which the tests
// of each bus have.
func RunWatermill(t *testing.T, start func(t *testing.T) Harness) {
	w := &watermill{Harness: start(t), topics: make(map[string]bool)}
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true, Persistent: true, ForceShort: true}
	group := func(t *testing.T, name string) (message.Publisher, message.Subscriber) {
		s := &subscriber{of: w, t: t, group: name}
		return &publisher{w, t, w.newPublisher(t, bus.PublisherOptions{})}, s
	}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return group(t, "watermill")
	}, group)
}

// watermill is a bus whose topics are created when they are used.
type watermill struct {
	Harness
	mu     sync.Mutex
	topics map[string]bool
}

func (w *watermill) use(t *testing.T, topic string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.topics[topic] {
		w.createTopic(t, oona.TopicSpec{Name: topic, Partitions: 3})
		w.topics[topic] = true
	}
}

const idHeader = "watermill-id"

// publisher is a message.Publisher.
type publisher struct {
	of *watermill
	t  *testing.T
	bus.Publisher
}

func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	p.of.use(p.t, topic)
	adapted := make([]*message.Message, len(messages))
	for i, msg := range messages {
		// Watermill tests the order of messages with the same payload.
		adapted[i] = bus.NewMessage(msg.Payload, bus.Target{Key: msg.Payload})
		for name, value := range msg.Metadata {
			adapted[i].Metadata.Set(name, value)
		}
		adapted[i].Metadata.Set(idHeader, msg.UUID)
	}
	return p.Publisher.Publish(context.Background(), topic, adapted...)
}

// subscriber makes a member for each subscription.
type subscriber struct {
	of    *watermill
	t     *testing.T
	group string

	mu      sync.Mutex
	closed  bool
	members []bus.Member
	handing sync.WaitGroup
}

// SubscribeInitialize creates a topic.
func (s *subscriber) SubscribeInitialize(topic string) error {
	s.of.use(s.t, topic)
	return nil
}

func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.of.use(s.t, topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, bus.ErrClosed
	}
	m := s.of.newMember(s.t, bus.MemberOptions{Group: s.group + topic, CommitEvery: 20 * time.Millisecond}, acking{})
	in, err := m.Subscribe(ctx, topic)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	s.members = append(s.members, m)
	out := make(chan *message.Message)
	s.handing.Go(func() {
		defer close(out)
		for msg := range in {
			hand(msg, out)
		}
	})
	return out, nil
}

// hand hands out a message with its id, and tells its consumer when it is acked.
func hand(msg *message.Message, out chan<- *message.Message) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		slog.Error("hand out a message", "err", err)
		msg.Nack()
		return
	}
	adapted := message.NewMessage(msg.Metadata.Get(idHeader), msg.Payload)
	for name, value := range msg.Metadata {
		if name != idHeader {
			adapted.Metadata.Set(name, value)
		}
	}
	ctx, cancel := context.WithCancel(msg.Context())
	defer cancel()
	adapted.SetContext(ctx)
	select {
	case out <- adapted:
	case <-ctx.Done():
		msg.Nack()
		return
	}
	select {
	case <-adapted.Acked():
		at.Consumer.(*acked).next(at.Offset + 1)
		msg.Ack()
	case <-adapted.Nacked():
		msg.Nack()
	case <-ctx.Done():
		msg.Nack()
	}
}

func (s *subscriber) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	for _, m := range s.members {
		err = errors.Join(err, m.Close())
	}
	s.members = nil
	s.handing.Wait()
	return err
}

// acking is an owner whose consumers commit acked messages.
type acking struct{}

func (acking) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, held := a.Resume()
	if !held {
		return 0, nil, fmt.Errorf("the log does not hold offset %d: %w", a.Committed.Offset, bus.ErrShort)
	}
	return from, &acked{}, nil
}

type acked struct {
	mu  sync.Mutex
	due int64 // 0: nothing is due
}

func (a *acked) next(offset int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = offset
}

func (a *acked) Commit() (bus.Commit, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	due := a.due
	a.due = 0
	return bus.Commit{Offset: due}, due > 0
}

func (a *acked) Committed(bus.Commit, error) {}
func (a *acked) End(int64)                   {}
func (a *acked) Revoke()                     {}
