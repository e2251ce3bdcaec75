package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/IBM/sarama"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Reader is a bus.Reader.
type Reader struct {
	cfg    Config
	opts   bus.ReaderOptions
	logger *slog.Logger

	mu          sync.Mutex
	closed      bool
	ranges      map[string][]bus.Range
	subscribers []*wmkafka.Subscriber
	handing     sync.WaitGroup // one goroutine for each topic
}

// Reader returns a *Reader.
func (b *Bus) Reader(opts bus.ReaderOptions) (bus.Reader, error) {
	if err := b.cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return &Reader{cfg: b.cfg, opts: opts, logger: b.logger, ranges: make(map[string][]bus.Range)}, nil
}

// Subscribe reads a topic until ctx ends. It fails if no broker answers, or if the reader
// has read the topic before.
func (r *Reader) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, bus.ErrClosed
	}
	if _, ok := r.ranges[topic]; ok {
		return nil, fmt.Errorf("%s is read already; use another reader", topic)
	}
	ranges, err := r.locate(ctx, topic)
	if err != nil {
		return nil, err
	}
	subscriber, messages, err := r.subscribe(ctx, topic, ranges, 0)
	if err != nil {
		return nil, err
	}
	r.ranges[topic] = ranges
	r.subscribers = append(r.subscribers, subscriber)
	out := make(chan *message.Message)
	r.handing.Go(func() { r.hand(ctx, topic, len(ranges), messages, out) })
	return out, nil
}

// subscribe reads the partitions of a topic, beginning with the given one.
func (r *Reader) subscribe(ctx context.Context, topic string, ranges []bus.Range, first int) (*wmkafka.Subscriber, <-chan *message.Message, error) {
	log := newTopicLog(ranges, first, r.logger)
	reading := r.cfg.readingAhead(r.opts.ReadAhead)
	divideFetches(reading, r.opts.ReadAheadAll, len(ranges))
	subscriber, err := wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers:               r.cfg.Brokers,
		Unmarshaler:           log,
		OverwriteSaramaConfig: reading,
		Tracer:                log,
	}, newWatermillLogger(r.logger))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", topic, err)
	}
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, nil, errors.Join(unreachable(r.cfg, fmt.Errorf("read %s: %w", topic, err)), subscriber.Close())
	}
	return subscriber, messages, nil
}

// hand hands on the messages of a topic with the given number of partitions, and those of
// partitions that are added later. It returns when one of its subscriptions has ended.
func (r *Reader) hand(ctx context.Context, topic string, partitions int, messages <-chan *message.Message, out chan<- *message.Message) {
	defer close(out)
	ctx, cancel := context.WithCancel(ctx)
	var added sync.WaitGroup
	defer added.Wait()
	defer cancel()
	if r.opts.AddedEvery > 0 {
		added.Go(func() { r.handAdded(ctx, cancel, topic, partitions, out) })
	}
	handOn(ctx, topic, messages, out)
}

// handAdded is for the partitions that are added to a topic. When one of its subscriptions ends, it
// calls ended, so that nobody waits for messages of these partitions.
func (r *Reader) handAdded(ctx context.Context, ended func(), topic string, partitions int, out chan<- *message.Message) {
	var handing sync.WaitGroup
	defer handing.Wait()
	for bus.Pause(ctx, r.opts.AddedEvery) {
		ranges, err := r.locate(ctx, topic)
		if err != nil || len(ranges) <= partitions {
			continue // what makes it fail is reported by what reads the other partitions
		}
		subscriber, messages, err := r.subscribe(ctx, topic, ranges, partitions)
		if err != nil {
			continue
		}
		r.mu.Lock()
		closed := r.closed
		r.subscribers = append(r.subscribers, subscriber)
		r.mu.Unlock()
		if closed { // Close did not know this subscriber
			_ = subscriber.Close()
			return
		}
		r.logger.Info("partitions were added to a topic, beginning with this one, and are read, too", "topic", topic, "partition", partitions)
		partitions = len(ranges)
		handing.Go(func() {
			defer ended()
			handOn(ctx, topic, messages, out)
		})
	}
}

// handOn hands on messages until ctx or the subscription ends, and adds their positions. They
// cannot be added earlier, as Watermill replaces the context of each message that it makes.
func handOn(ctx context.Context, topic string, in <-chan *message.Message, out chan<- *message.Message) {
	for {
		var msg *message.Message
		select {
		case <-ctx.Done():
			return
		case msg = <-in:
		}
		if msg == nil {
			return
		}
		at := bus.Position{Topic: topic}
		at.Partition, _ = wmkafka.MessagePartitionFromCtx(msg.Context())
		at.Offset, _ = wmkafka.MessagePartitionOffsetFromCtx(msg.Context())
		at.Key, _ = wmkafka.MessageKeyFromCtx(msg.Context())
		appended, _ := wmkafka.MessageTimestampFromCtx(msg.Context())
		at.Appended = oona.MicrosOf(appended)
		msg.SetContext(bus.WithPosition(msg.Context(), at))
		select {
		case out <- msg:
		case <-ctx.Done():
		case <-msg.Context().Done():
		}
	}
}

// Ranges implements bus.Reader.
func (r *Reader) Ranges(topic string) []bus.Range {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ranges[topic]
}

// Close ends all subscriptions.
func (r *Reader) Close() error {
	r.mu.Lock()
	r.closed = true
	subscribers := r.subscribers
	r.subscribers = nil
	r.mu.Unlock()
	var err error
	for _, s := range subscribers {
		err = errors.Join(err, s.Close())
	}
	r.handing.Wait()
	return err
}

// locate returns where to begin with each partition of a topic, and where it ends.
func (r *Reader) locate(ctx context.Context, topic string) (_ []bus.Range, err error) {
	client, err := connect(r.cfg, r.cfg.client())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	partitions, err := partitionsIn(ctx, r.cfg, client, topic)
	if err != nil {
		return nil, err
	}
	// First, so that no record is after the end and before the beginning.
	ends, err := offsetsAt(ctx, r.cfg, client, sarama.OffsetNewest, partitions)
	if err != nil {
		return nil, err
	}
	at := sarama.OffsetOldest
	if !r.opts.From.IsZero() {
		at = r.opts.From.UnixMilli()
	}
	starts, err := offsetsAt(ctx, r.cfg, client, at, partitions)
	if err != nil {
		return nil, err
	}
	ranges := make([]bus.Range, len(partitions))
	for i, p := range partitions {
		ranges[i] = bus.Range{Partition: p.partition, From: starts[p], End: ends[p]}
		if starts[p] < 0 { // no such record
			ranges[i].From = ends[p]
		}
	}
	return ranges, nil
}

// topicLog is the state of a subscription. It makes the messages, and through the hooks
// of Watermill it sets where each partition begins.
type topicLog struct {
	watermillHooks
	ranges []bus.Range // by partition
	first  int         // the first partition that is read
	logger *slog.Logger

	mu   sync.Mutex
	next []int64 // next offset, by partition
}

func newTopicLog(ranges []bus.Range, first int, logger *slog.Logger) *topicLog {
	log := &topicLog{ranges: ranges, first: first, logger: logger, next: make([]int64, len(ranges))}
	for i, c := range ranges {
		log.next[i] = c.From
	}
	return log
}

func (l *topicLog) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	return newMessage(r), nil
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

// positioned is a consumer that begins with each partition where the topicLog says.
type positioned struct {
	sarama.Consumer
	log *topicLog
}

// Partitions returns the partitions of when the topic was subscribed to.
func (p positioned) Partitions(string) ([]int32, error) {
	var partitions []int32
	for i := p.log.first; i < len(p.log.ranges); i++ {
		partitions = append(partitions, int32(i))
	}
	return partitions, nil
}

func (p positioned) ConsumePartition(topic string, partition int32, _ int64) (sarama.PartitionConsumer, error) {
	return openPartition(p.Consumer, p.log, topic, partition)
}
