package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/oklog/ulid/v2"

	"github.com/morphogenetic/oona"
)

// LogReaderOptions say where reading begins.
type LogReaderOptions struct {
	// From: each partition begins at its first record whose time is at or
	// after this, and where there is none, at its end. Zero: at the oldest.
	From time.Time
}

// LogReader is a message.Subscriber that reads all partitions of a topic by
// itself, without a group. Of each partition it hands out one message at a
// time. When brokers fail or move it goes on at the next record, and where the
// log no longer has that, at the oldest, with an error logged. Partitions that
// are added to a topic later are not read.
type LogReader struct {
	cfg    Config
	from   time.Time
	logger *slog.Logger

	mu          sync.Mutex
	closed      bool
	claims      map[string][]oona.Claim
	subscribers []*wmkafka.Subscriber
}

// NewLogReader returns a reader; Subscribe connects.
func NewLogReader(cfg Config, opts LogReaderOptions, logger *slog.Logger) (*LogReader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return &LogReader{cfg: cfg, from: opts.From, logger: logger, claims: make(map[string][]oona.Claim)}, nil
}

// Subscribe reads a topic until ctx ends. It fails when no broker answers, and
// when the reader has read the topic before: take another reader for that.
func (r *LogReader) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if _, ok := r.claims[topic]; ok {
		return nil, fmt.Errorf("%s is read already; make another reader", topic)
	}
	claims, err := r.locate(ctx, topic)
	if err != nil {
		return nil, err
	}
	log := newTopicLog(claims, r.logger)
	subscriber, err := wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers:               r.cfg.Brokers,
		Unmarshaler:           log,
		OverwriteSaramaConfig: r.cfg.consumer(),
		Tracer:                log,
	}, newQuiet(r.logger))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, errors.Join(unreachable(r.cfg, fmt.Errorf("read %s: %w", topic, err)), subscriber.Close())
	}
	r.claims[topic] = claims
	r.subscribers = append(r.subscribers, subscriber)
	return messages, nil
}

// Claims says, of each partition of a topic, where reading began and where the
// log ended then: whoever has read up to HighWater is caught up. It is known
// before Subscribe returns, and nil before.
func (r *LogReader) Claims(topic string) []oona.Claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.claims[topic]
}

// Close ends all subscriptions.
func (r *LogReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var err error
	for _, s := range r.subscribers {
		err = errors.Join(err, s.Close())
	}
	r.subscribers = nil
	return err
}

// locate finds where the partitions of a topic begin and end.
func (r *LogReader) locate(ctx context.Context, topic string) (_ []oona.Claim, err error) {
	client, err := connect(r.cfg, r.cfg.client())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	newest, err := offsetsOf(ctx, r.cfg, client, sarama.OffsetNewest, topic) // first, so that nothing falls between it and the start
	if err != nil {
		return nil, err
	}
	at := sarama.OffsetOldest
	if !r.from.IsZero() {
		at = r.from.UnixMilli()
	}
	first, err := offsetsOf(ctx, r.cfg, client, at, topic)
	if err != nil {
		return nil, err
	}
	ends, starts := newest[topic], first[topic]
	id := ulid.Make().String()
	claims := make([]oona.Claim, 0, len(ends))
	for p := range int32(len(ends)) {
		start, ok := starts[p]
		if !ok || start < 0 { // nothing that young
			start = ends[p]
		}
		claims = append(claims, oona.Claim{ID: fmt.Sprintf("%s-%d", id, p), Topic: topic, Partition: p, Start: start, HighWater: ends[p]})
	}
	return claims, nil
}

// topicLog is what a subscription knows of its topic: it makes the messages,
// and in Watermill's seam it sets where each partition begins.
type topicLog struct {
	seam
	claims []oona.Claim // by partition
	logger *slog.Logger

	mu   sync.Mutex
	next []int64 // offset to go on at, by partition
}

func newTopicLog(claims []oona.Claim, logger *slog.Logger) *topicLog {
	log := &topicLog{claims: claims, logger: logger, next: make([]int64, len(claims))}
	for i, c := range claims {
		log.next[i] = c.Start
	}
	return log
}

func (l *topicLog) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	return newMessage(r, r.Headers, l.claims[r.Partition].ID), nil
}

func (l *topicLog) WrapConsumer(c sarama.Consumer) sarama.Consumer {
	return positioned{c, l}
}

func (l *topicLog) position(partition int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next[partition]
}

func (l *topicLog) advance(partition int32, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next[partition] = next
}

// positioned is a consumer that begins each partition where its log says.
type positioned struct {
	sarama.Consumer
	log *topicLog
}

// Partitions are those that were there at the start.
func (p positioned) Partitions(string) ([]int32, error) {
	partitions := make([]int32, len(p.log.claims))
	for i := range partitions {
		partitions[i] = int32(i)
	}
	return partitions, nil
}

func (p positioned) ConsumePartition(topic string, partition int32, _ int64) (sarama.PartitionConsumer, error) {
	return openPartition(p.Consumer, p.log, topic, partition)
}
