package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// PublisherOptions are what publishers differ in.
type PublisherOptions struct {
	// MaxMessageBytes is the topics' max.message.bytes, of a record with its
	// key, headers and the header of its batch. 0: 1 MiB, which fits Kafka's
	// own default.
	MaxMessageBytes int
	// BatchBytes is the most that records may take that are put into one batch,
	// which a topic's max.message.bytes limits as it limits a record. It is for a
	// publisher to topics that differ in it: a record that is larger is sent by
	// itself. 0, or above 1 MiB: 1 MiB, or MaxMessageBytes where that is less.
	BatchBytes int
	// Compression of batches: "lz4", or "none" or "".
	Compression string
	// DeliveryTimeout is how long records are tried again while the bus takes nothing
	// of their partition. 0: 5 seconds. An attempt that gets no answer takes up
	// to 5 seconds more.
	DeliveryTimeout time.Duration
	// Pin is a topic whose number of partitions must stay what it is when the
	// publisher begins; empty: none. Once it is another, nothing is published
	// to it any more: Publish returns a *PartitionsError.
	Pin string
}

// RollupOptions are those of a publisher of rollups. The caller tries again for
// as long as it takes and reports failures, so this publisher fails fast.
func RollupOptions() PublisherOptions {
	return PublisherOptions{DeliveryTimeout: 3 * time.Second, Compression: "lz4", MaxMessageBytes: oona.MaxRollupBytes}
}

const (
	defaultMaxMessage = 1 << 20
	defaultDelivery   = 5 * time.Second
	batchOverhead     = 61 // header of a record batch
	maxBackoff        = 500 * time.Millisecond
	// closeGrace is how long Close waits for records on their way.
	closeGrace = 5 * time.Second
)

// Validate returns an *oona.FieldError for the first option that is wrong.
func (o PublisherOptions) Validate() error {
	switch {
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > 0 && o.MaxMessageBytes < 1<<10 || o.MaxMessageBytes > 64<<20:
		return &oona.FieldError{Field: "--max-message-bytes", Reason: fmt.Sprintf("is %d; give 1024 to %d", o.MaxMessageBytes, 64<<20)}
	case o.BatchBytes < 0:
		return &oona.FieldError{Field: "batch-bytes", Reason: fmt.Sprintf("is %d; give 0 or more", o.BatchBytes)}
	case o.Compression != "" && o.Compression != "none" && o.Compression != "lz4":
		return &oona.FieldError{Field: "--compression", Reason: fmt.Sprintf("is %q; give none or lz4", o.Compression)}
	case o.DeliveryTimeout < 0 || o.DeliveryTimeout > 24*time.Hour:
		return &oona.FieldError{Field: "delivery-timeout", Reason: fmt.Sprintf("is %s; give at most a day", o.DeliveryTimeout)}
	}
	return nil
}

// producer returns the configuration of a publisher's client.
func (c Config) producer(o PublisherOptions) *sarama.Config {
	s := c.client()
	if o.Compression == "lz4" {
		s.Producer.Compression = sarama.CompressionLZ4
	}
	if o.Pin != "" {
		s.Metadata.RefreshFrequency = guardRefresh
	}
	return s
}

func backoff(retries int) time.Duration {
	return min(50*time.Millisecond<<min(retries, 10), maxBackoff)
}

// Publisher publishes to Kafka: acknowledged by all in-sync replicas, in order
// within each partition, with a key hashed as Java's clients do. A record whose
// acknowledgement was lost may be written twice. It is safe for concurrent use.
type Publisher struct {
	opts     PublisherOptions
	guard    *partitionGuard // nil: none
	client   sarama.Client
	producer *producer
	abandon  context.CancelFunc // ends what the producer waits for

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // of Publish

	closing  sync.Once
	closeErr error
}

// NewPublisher connects to the bus; it fails when no broker answers.
func NewPublisher(cfg Config, opts PublisherOptions) (*Publisher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	opts.MaxMessageBytes = cmp.Or(opts.MaxMessageBytes, defaultMaxMessage)
	opts.DeliveryTimeout = cmp.Or(opts.DeliveryTimeout, defaultDelivery)
	client, err := connect(cfg, cfg.producer(opts))
	if err != nil {
		return nil, err
	}
	p := &Publisher{opts: opts, client: client}
	if opts.Pin != "" {
		if p.guard, err = newPartitionGuard(cfg, client, opts.Pin); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare a publisher at %v: %w", cfg.Brokers, err), client.Close())
		}
	}
	var closing context.Context
	closing, p.abandon = context.WithCancel(context.Background())
	p.producer = newProducer(closing, client, p.guard, opts)
	return p, nil
}

// Publish publishes messages as bus.Publisher says. If some have failed, the error
// is a *PublishError. With a *OversizeError, an *oona.FieldError or bus.ErrClosed
// nothing was sent. A *PartitionsError may be that of some messages only: see
// PublisherOptions.Pin. When ctx ends, messages that are on their way are waited
// for, some seconds at most.
func (p *Publisher) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	records := make([]*sarama.ProducerMessage, len(messages))
	for i, msg := range messages {
		r, err := record(topic, msg)
		if err != nil {
			return fmt.Errorf("message %d of %d for %s: %w", i, len(messages), topic, err)
		}
		if size := r.ByteSize(2) + batchOverhead; size > p.opts.MaxMessageBytes {
			return &OversizeError{Topic: topic, Index: i, Bytes: size, Limit: p.opts.MaxMessageBytes}
		}
		records[i] = r
	}
	if !p.begin() {
		return bus.ErrClosed
	}
	defer p.calls.Done()
	if p.guard != nil && p.guard.topic == topic {
		if err := p.guard.look(p.client); err != nil {
			return err
		}
	}
	if err := p.producer.produce(ctx, topic, records); err != nil {
		return publishError(topic, records, err)
	}
	return nil
}

// begin counts a call as on its way, and returns false after Close.
func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls.Add(1)
	return true
}

// Pinned returns nil while the topic of PublisherOptions.Pin has the number of
// partitions that it had, as far as is known, and then a *PartitionsError. It
// never waits for the bus.
func (p *Publisher) Pinned() error {
	if p.guard == nil {
		return nil
	}
	return p.guard.known(p.client)
}

// Close waits a few seconds for records on their way, lets the rest fail, and
// disconnects. Further calls return what the first did.
func (p *Publisher) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		defer p.abandon()
		done := make(chan struct{})
		go func() { p.calls.Wait(); close(done) }()
		timer := time.NewTimer(closeGrace)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			p.abandon()
			<-done
		}
		p.producer.close()
		if err := p.client.Close(); err != nil {
			p.closeErr = fmt.Errorf("close the publisher: %w", err)
		}
	})
	return p.closeErr
}
