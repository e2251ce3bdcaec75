package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

const (
	defaultMaxMessage = 1 << 20
	defaultDelivery   = 5 * time.Second
	batchOverhead     = 61 // header of a record batch
	maxBackoff        = 500 * time.Millisecond
	// closeGrace is how long Close waits for records on their way.
	closeGrace = 5 * time.Second
)

// producer returns the configuration of a publisher's client.
func (c Config) producer(o bus.PublisherOptions) *sarama.Config {
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

// Publisher is a bus.PinnedPublisher. Records are acknowledged by all in-sync replicas,
// in order within each partition. Keys are hashed as by the Java clients.
type Publisher struct {
	opts     bus.PublisherOptions
	guard    *partitionGuard // nil: no topic is pinned
	client   sarama.Client
	producer *producer
	abandon  context.CancelFunc // ends all waiting of the producer

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // of Publish

	closing  sync.Once
	closeErr error
}

// Publisher returns a *Publisher.
func (b *Bus) Publisher(opts bus.PublisherOptions) (bus.PinnedPublisher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	opts.MaxMessageBytes = cmp.Or(opts.MaxMessageBytes, defaultMaxMessage)
	opts.DeliveryTimeout = cmp.Or(opts.DeliveryTimeout, defaultDelivery)
	client, err := connect(b.cfg, b.cfg.producer(opts))
	if err != nil {
		return nil, err
	}
	p := &Publisher{opts: opts, client: client}
	if opts.Pin != "" {
		if p.guard, err = newPartitionGuard(b.cfg, client, opts.Pin); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare a publisher at %v: %w", b.cfg.Brokers, err), client.Close())
		}
	}
	var closing context.Context
	closing, p.abandon = context.WithCancel(context.Background())
	p.producer = newProducer(closing, client, p.guard, opts)
	return p, nil
}

// Publish implements bus.Publisher. When ctx ends, it waits for messages that are on
// their way, for a few seconds at most.
func (p *Publisher) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	records := make([]*outgoing, len(messages))
	for i, msg := range messages {
		r, err := newOutgoing(i, msg)
		if err != nil {
			return fmt.Errorf("message %d of %d for %s: %w", i, len(messages), topic, err)
		}
		if size := r.size + batchOverhead; size > p.opts.MaxMessageBytes {
			err := fmt.Errorf("%w: it takes %d bytes as a record, and the limit is %d", bus.ErrTooLarge, size, p.opts.MaxMessageBytes)
			return &bus.PublishError{Topic: topic, Messages: len(messages), Failed: []bus.FailedMessage{{Index: i, Err: err}}}
		}
		records[i] = r
	}
	if !p.begin() {
		return bus.ErrClosed
	}
	defer p.calls.Done()
	failed, err := p.producer.produce(ctx, topic, records)
	if err != nil || len(failed) == 0 {
		return err
	}
	slices.SortFunc(failed, func(a, b bus.FailedMessage) int { return cmp.Compare(a.Index, b.Index) })
	return &bus.PublishError{Topic: topic, Messages: len(messages), Failed: failed}
}

// begin registers a call of Publish. It returns false after Close.
func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls.Add(1)
	return true
}

// Pinned implements bus.PinnedPublisher.
func (p *Publisher) Pinned() error {
	return p.guard.pinned(p.client)
}

// Close waits a few seconds for records on their way, makes the others fail, and
// disconnects. Further calls return the result of the first.
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
