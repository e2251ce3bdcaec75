package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Member is a bus.Member of a consumer group.
type Member struct {
	inner   *wmkafka.Subscriber
	owner   bus.Owner
	offsets *offsets
	every   time.Duration  // time between commits, and between requests for the end of a partition
	reading *sarama.Config // of inner, which uses it from Subscribe on
	ahead   *ahead
	logger  *slog.Logger

	out        chan *message.Message
	membership membership
	subscribed atomic.Bool
	topic      string         // set by Subscribe
	ending     sync.WaitGroup // goroutines that Close waits for
}

const defaultCommitEvery = time.Second

func (c Config) member(o bus.MemberOptions) *sarama.Config {
	s := c.readingAhead(o.ReadAhead)
	s.Consumer.Group.InstanceId = o.Instance
	return s
}

// Member returns a *Member.
func (b *Bus) Member(opts bus.MemberOptions, owner bus.Owner) (bus.Member, error) {
	if err := b.cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	m := &Member{
		owner:   owner,
		offsets: &offsets{cfg: b.cfg, group: opts.Group, instance: opts.Instance},
		every:   cmp.Or(opts.CommitEvery, defaultCommitEvery),
		reading: b.cfg.member(opts),
		ahead:   newAhead(opts),
		logger:  b.logger,
		out:     make(chan *message.Message),
	}
	logger := newWatermillLogger(b.logger)
	logger.failed = m.membership.fail
	var err error
	m.inner, err = wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers:               b.cfg.Brokers,
		ConsumerGroup:         opts.Group,
		Unmarshaler:           wmkafka.DefaultMarshaler{}, // must be set, but is not used
		OverwriteSaramaConfig: m.reading,
		Tracer:                groupSeam{member: m},
	}, logger)
	if err != nil {
		return nil, fmt.Errorf("subscribe as group %s: %w", opts.Group, err)
	}
	return m, nil
}

// Subscribe joins the group and hands out messages until ctx ends. It can be called once:
// two memberships with the same instance would fence each other.
func (s *Member) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if !s.subscribed.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, bus.ErrSubscribed)
	}
	s.topic = topic
	if err := s.divideAhead(ctx); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	in, err := s.inner.Subscribe(ctx, topic)
	if err != nil {
		return nil, unreachable(s.offsets.cfg, fmt.Errorf("subscribe to %s: %w", topic, err))
	}
	s.ending.Go(func() {
		<-in // Watermill sends no messages here, because its handler is replaced; it closes the channel after the last assignment
		close(s.out)
	})
	return s.out, nil
}

// Joined implements bus.Member.
func (s *Member) Joined() error { return s.membership.joined() }

// Close leaves the group after its assignments have ended.
func (s *Member) Close() error {
	err := errors.Join(s.inner.Close(), s.offsets.close())
	s.ending.Wait()
	return err
}

// watermillHooks implements the Tracer of watermill-kafka, which can wrap its consumers. This type
// wraps nothing; others embed it and replace a method.
type watermillHooks struct{}

func (watermillHooks) WrapConsumer(c sarama.Consumer) sarama.Consumer { return c }

func (watermillHooks) WrapPartitionConsumer(c sarama.PartitionConsumer) sarama.PartitionConsumer {
	return c
}

func (watermillHooks) WrapConsumerGroupHandler(h sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	return h
}

func (watermillHooks) WrapSyncProducer(_ *sarama.Config, p sarama.SyncProducer) sarama.SyncProducer {
	return p
}

// groupSeam replaces Watermill's handler of a group. Watermill's subscriber still joins
// the group, joins again after each session, and reconnects after errors.
type groupSeam struct {
	watermillHooks
	member *Member
}

func (g groupSeam) WrapConsumerGroupHandler(sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	return &sessionHandler{member: g.member, logger: g.member.logger}
}
