package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/oklog/ulid/v2"

	"github.com/morphogenetic/oona"
)

// Owner keeps what belongs to a claimed partition. For each claim, Open is
// called before its first message is handed out, and Close after its last one
// was acked or nacked, once. Claims of different partitions open and close
// concurrently; of one partition and subscriber, a claim closes before the next
// opens.
//
// When Open fails, it is called again after a pause, for as long as the
// partition is assigned; Close is called only for claims that were opened. A
// handler that neither acks nor nacks is waited for as long as a rebalance may
// take; then Close is called all the same, and an error logged.
type Owner interface {
	Open(ctx context.Context, c oona.Claim) error
	Close(c oona.Claim)
}

// GroupSubscriber is a message.Subscriber that shares the partitions of a topic
// with the other members of its group. Every message carries its claim's id.
// Of each partition it hands out one message at a time; one that is nacked
// comes again, as long as the claim lasts.
//
// It commits nothing: each claim begins at the oldest record.
type GroupSubscriber struct {
	cfg    Config
	inner  *kafka.Subscriber
	owner  Owner
	logger *slog.Logger

	id     string // begins the ids of claims
	opened atomic.Int64
	claims claims

	forwarding sync.WaitGroup

	mu     sync.Mutex
	client sarama.Client // for questions about offsets; nil until the first
	closed bool
}

// NewGroupSubscriber returns a member-to-be of a group: Subscribe joins it, and
// fails when no broker answers then.
func NewGroupSubscriber(cfg Config, group string, owner Owner, logger *slog.Logger) (*GroupSubscriber, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if group == "" {
		return nil, &oona.FieldError{Field: "group", Reason: "is empty; name the consumer group"}
	}
	s := &GroupSubscriber{cfg: cfg, owner: owner, logger: logger, id: ulid.Make().String(), claims: claims{open: make(map[string]*claim)}}
	var err error
	s.inner, err = kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers:               cfg.Brokers,
		ConsumerGroup:         group,
		Unmarshaler:           stamped{},
		OverwriteSaramaConfig: cfg.consumer(),
		Tracer:                groupSeam{subscriber: s},
	}, quiet{logger})
	if err != nil {
		return nil, fmt.Errorf("subscribe as group %s: %w", group, err)
	}
	return s, nil
}

// Subscribe joins the group and hands out messages until ctx ends.
func (s *GroupSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := s.inner.Subscribe(ctx, topic)
	if err != nil {
		return nil, unreachable(s.cfg, fmt.Errorf("subscribe to %s: %w", topic, err))
	}
	out := make(chan *message.Message)
	s.forwarding.Go(func() { s.claims.forward(in, out) })
	return out, nil
}

// Close leaves the group, once the claims are closed.
func (s *GroupSubscriber) Close() error {
	err := s.inner.Close()
	s.forwarding.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.client != nil {
		err = errors.Join(err, s.client.Close())
		s.client = nil
	}
	return err
}

// oldest returns the offset of the first record that a partition still holds.
func (s *GroupSubscriber) oldest(ctx context.Context, topic string, partition int32) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || ctx.Err() != nil {
		return 0, ErrClosed
	}
	if s.client == nil {
		client, err := connect(s.cfg, s.cfg.client())
		if err != nil {
			return 0, err
		}
		s.client = client
	}
	offset, err := s.client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return 0, fmt.Errorf("find the oldest offset of %s/%d: %w", topic, partition, err)
	}
	return offset, nil
}

// stamped makes messages of records that a claim has stamped.
type stamped struct{}

func (stamped) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	last := len(r.Headers) - 1
	return newMessage(r, r.Headers[:last], string(r.Headers[last].Value)), nil
}

// seam is where watermill-kafka lets a tracer wrap what it uses; by itself it
// wraps nothing.
type seam struct{}

func (seam) WrapConsumer(c sarama.Consumer) sarama.Consumer { return c }

func (seam) WrapPartitionConsumer(c sarama.PartitionConsumer) sarama.PartitionConsumer { return c }

func (seam) WrapConsumerGroupHandler(h sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	return h
}

func (seam) WrapSyncProducer(_ *sarama.Config, p sarama.SyncProducer) sarama.SyncProducer { return p }

// groupSeam wraps Watermill's handler of a group.
type groupSeam struct {
	seam
	subscriber *GroupSubscriber
}

func (g groupSeam) WrapConsumerGroupHandler(h sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	return &groupHandler{h, g.subscriber, g.subscriber.logger}
}
