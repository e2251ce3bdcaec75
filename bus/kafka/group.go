package kafka

import (
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
//
// Commit is asked for from time to time, and a last time before Close, what may
// be committed of a claim; false: nothing that is new. Committed tells what
// became of it. Ends is told as often, by the partition's leader, the offset after
// the last record, whether or not records come from there; while the leader does
// not answer, it is not called. All are called beside the handler.
//
// A claim whose Start is refused is opened although it is not read: Open must
// refuse it, and the group goes on asking.
type Owner interface {
	Open(ctx context.Context, c oona.Claim) error
	Close(c oona.Claim)
	Commit(c oona.Claim) (oona.Commit, bool)
	Committed(c oona.Claim, commit oona.Commit, err error)
	Ends(c oona.Claim, offset int64)
}

// GroupSubscriber is a message.Subscriber that shares the partitions of a topic
// with the other members of its group. Every message carries its claim's id.
// Of each partition it hands out one message at a time; one that is nacked
// comes again, as long as the claim lasts.
//
// To ack a message commits nothing: what is committed, and when, is the
// owner's to say. A partition without a commit is read from its oldest record.
type GroupSubscriber struct {
	inner   *wmkafka.Subscriber
	owner   Owner
	offsets *offsets
	every   time.Duration // between commits, and between looks at where a partition ends
	start   func(context.Context, oona.Claim) (oona.Start, error)
	logger  *slog.Logger

	id     string // begins the ids of claims
	opened atomic.Int64

	out        chan *message.Message
	membership membership
	subscribed atomic.Bool
	ending     sync.WaitGroup // closes out, and requests that outlive their claims
}

// GroupOptions are how a member joins its group.
type GroupOptions struct {
	Group string
	// Instance makes the membership static: a member that comes back under
	// the same name within the session timeout gets its partitions without a
	// rebalance. Unique in the group: of two members with one the first ends,
	// with ErrInstance. Empty: dynamic membership.
	Instance string
	// Start decides where the reading of a claim begins, and whether it may.
	// Nil: at the commit where the log holds its offset, at the oldest record
	// where there is no commit, and where the log does not hold it by FromHere.
	Start func(context.Context, oona.Claim) (oona.Start, error)
	// FromHere has a partition whose commit the log has overtaken, or does not
	// reach, read from its oldest record. Else its owner is asked to refuse it.
	// It counts only without Start.
	FromHere bool
	// CommitEvery is the time between the commits of a partition, and between two
	// looks at where it ends; 0: 1 s.
	CommitEvery time.Duration
}

const defaultCommitEvery = time.Second

// Validate returns an *oona.FieldError for the first option that is wrong.
func (o GroupOptions) Validate(cfg Config) error {
	if o.Group == "" {
		return &oona.FieldError{Field: "--group", Reason: "is empty; name the consumer group"}
	}
	if err := o.consumer(cfg).Validate(); err != nil {
		return &oona.FieldError{Field: "--group-instance", Reason: fmt.Sprintf("is %q: %v", o.Instance, err)}
	}
	return nil
}

func (o GroupOptions) consumer(cfg Config) *sarama.Config {
	s := cfg.consumer()
	s.Consumer.Group.InstanceId = o.Instance
	return s
}

// NewGroupSubscriber returns a member-to-be of a group: Subscribe joins it, and
// fails when no broker answers then.
func NewGroupSubscriber(cfg Config, options GroupOptions, owner Owner, logger *slog.Logger) (*GroupSubscriber, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if err := options.Validate(cfg); err != nil {
		return nil, err
	}
	s := &GroupSubscriber{
		owner:   owner,
		offsets: &offsets{cfg: cfg, group: options.Group, instance: options.Instance},
		every:   options.CommitEvery,
		start:   options.Start,
		logger:  logger,
		id:      ulid.Make().String(),
		out:     make(chan *message.Message),
	}
	if s.start == nil {
		s.start = startAtCommit(options.FromHere)
	}
	if s.every <= 0 {
		s.every = defaultCommitEvery
	}
	var err error
	s.inner, err = wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers:               cfg.Brokers,
		ConsumerGroup:         options.Group,
		Unmarshaler:           wmkafka.DefaultMarshaler{}, // demanded, and not used
		OverwriteSaramaConfig: options.consumer(cfg),
		Tracer:                groupSeam{subscriber: s},
	}, newQuiet(logger))
	if err != nil {
		return nil, fmt.Errorf("subscribe as group %s: %w", options.Group, err)
	}
	return s, nil
}

// Subscribe joins the group and hands out messages until ctx ends. It can be
// called once: two memberships under one instance would fence each other.
func (s *GroupSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if !s.subscribed.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, ErrSubscribed)
	}
	in, err := s.inner.Subscribe(ctx, topic)
	if err != nil {
		return nil, unreachable(s.offsets.cfg, fmt.Errorf("subscribe to %s: %w", topic, err))
	}
	s.ending.Go(func() {
		<-in // Watermill sends nothing, as its handler is replaced; it closes once all claims are closed
		close(s.out)
	})
	return s.out, nil
}

// Joined returns nil while this member is in a generation of its group and all
// partitions that it was assigned are open, of which there may be none; else
// why it is not. With ErrInstance the messages have ended, or end.
func (s *GroupSubscriber) Joined() error { return s.membership.joined() }

// Close leaves the group, once the claims are closed.
func (s *GroupSubscriber) Close() error {
	err := errors.Join(s.inner.Close(), s.offsets.close())
	s.ending.Wait()
	return err
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

// groupSeam replaces Watermill's handler of a group. What remains of Watermill's
// subscriber joins the group, again whenever a session has ended, and connects
// again after errors.
type groupSeam struct {
	seam
	subscriber *GroupSubscriber
}

func (g groupSeam) WrapConsumerGroupHandler(sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	return &groupHandler{subscriber: g.subscriber, logger: g.subscriber.logger}
}
