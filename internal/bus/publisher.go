package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// PublisherOptions are what publishers differ in.
type PublisherOptions struct {
	// MaxMessageBytes is the topics' max.message.bytes, of a record with its
	// key, headers and the header of its batch. 0: 1 MiB, which fits Kafka's
	// own default.
	MaxMessageBytes int
	// BatchBytes is what records may take that are put into one batch, which a
	// topic's max.message.bytes limits as it limits a record. It is for Ordered,
	// and for a publisher to topics that differ in it: a record that is larger is
	// sent by itself. 0, or above 1 MiB: 1 MiB, or MaxMessageBytes where that is
	// less.
	BatchBytes int
	// Compression of batches: "lz4", or "none" or "".
	Compression string
	// Patience is how long records are tried again while the bus refuses
	// them, and half of it where it refuses connections or has no leader.
	// 0: 5 seconds. Where a bus accepts connections and does not answer, a
	// call takes two to three times as long; then the connection is given up,
	// and with it all calls on it.
	Patience time.Duration
	// Ordered keeps the order of records within a partition: behind a record that
	// has failed, nothing of the call is published to its partition. A record may
	// then be published twice, and a connection is never given up.
	Ordered bool
	// Pin is a topic whose number of partitions must stay what it is when the
	// publisher begins; empty: none. Once it is another, nothing is published
	// to it any more: Publish returns a *PartitionsError.
	Pin string
}

// RollupOptions are those of a publisher of rollups. One that was written after
// its successor would be lost to readers, so their order is kept. Who publishes
// them tries again for as long as it takes, and says so: it must hear of it soon.
func RollupOptions() PublisherOptions {
	return PublisherOptions{Ordered: true, Patience: 3 * time.Second, Compression: "lz4", MaxMessageBytes: oona.MaxRollupBytes}
}

const (
	defaultMaxMessage = 1 << 20
	defaultPatience   = 5 * time.Second
	batchOverhead     = 61 // header of a record batch
	maxBackoff        = 500 * time.Millisecond
	// watchdogGrace is what retries may take beyond patience before the
	// connection is given up.
	watchdogGrace = time.Second
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
	case o.Patience < 0 || o.Patience > 24*time.Hour:
		return &oona.FieldError{Field: "patience", Reason: fmt.Sprintf("is %s; give at most a day", o.Patience)}
	}
	return nil
}

// produceTimeout is how long a broker may wait for the in-sync replicas.
const produceTimeout = 3 * time.Second

// producer returns the configuration of a publisher. Once closing has ended,
// retries follow each other without a pause, until they fail on a client that
// is closed: sarama has no other way to end them.
func (c Config) producer(closing context.Context, o PublisherOptions) *sarama.Config {
	s := c.client()
	if o.Compression == "lz4" {
		s.Producer.Compression = sarama.CompressionLZ4
	}
	if o.Pin != "" {
		s.Metadata.RefreshFrequency = pinRefresh
	}
	if o.Ordered { // the rest is that of sarama's producer
		return s
	}
	s.Net.MaxOpenRequests = 1 // Idempotent demands it
	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.MaxMessageBytes = o.MaxMessageBytes - batchOverhead
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration {
		if closing.Err() != nil {
			return 0
		}
		return backoff(retries)
	}
	s.Producer.Retry.Max = retriesWithin(o.Patience)
	// A broker that hangs is not waited for beyond patience.
	s.Net.ReadTimeout = max(o.Patience/2, time.Second)
	s.Producer.Timeout = s.Net.ReadTimeout * 3 / 4
	s.Metadata.Timeout = o.Patience
	// Where nobody says who leads a partition, sarama looks twice, with these
	// retries, and then fails a batch for good, whatever Producer.Retry says. A
	// call whose records are looked for one by one must end before the watchdog,
	// which would take calls to other partitions with it.
	s.Metadata.Retry.Max = max(1, int(o.Patience/4/s.Metadata.Retry.Backoff))
	return s
}

func backoff(retries int) time.Duration {
	return min(50*time.Millisecond<<min(retries, 10), maxBackoff)
}

// retriesWithin returns how often to try again within a time, when each
// attempt fails at once but for a refresh of metadata with one retry.
func retriesWithin(patience time.Duration) int {
	n := 0
	for spent := time.Duration(0); spent < patience; n++ {
		spent += backoff(n+1) + 100*time.Millisecond
	}
	return n
}

// Publisher publishes to Kafka: acknowledged by all in-sync replicas, with a key
// hashed as Java's clients do; idempotent, or in order (PublisherOptions.Ordered).
// It is safe for concurrent use.
type Publisher struct {
	cfg  Config
	opts PublisherOptions
	pin  *pin // nil: none

	mu       sync.Mutex
	closed   bool
	current  *connection // nil once given up, until the next call
	lostAt   time.Time   // of the last attempt to connect that failed
	lost     error
	retiring sync.WaitGroup // connections that were given up

	closing  sync.Once
	closeErr error
}

// NewPublisher connects to the bus; it fails when no broker answers.
func NewPublisher(cfg Config, opts PublisherOptions) (*Publisher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	if opts.MaxMessageBytes == 0 {
		opts.MaxMessageBytes = defaultMaxMessage
	}
	if opts.Patience == 0 {
		opts.Patience = defaultPatience
	}
	// The producer's client may try for long to find a first broker.
	probe, err := connect(cfg, cfg.client())
	if err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg, opts: opts}
	if opts.Pin != "" {
		p.pin, err = newPin(probe, opts.Pin)
	}
	if err := errors.Join(err, probe.Close()); err != nil {
		return nil, fmt.Errorf("prepare a publisher at %v: %w", cfg.Brokers, err)
	}
	if p.current, err = openConnection(cfg, opts, p.pin); err != nil {
		return nil, err
	}
	return p, nil
}

// Publish publishes messages as one batch and returns when each is acknowledged
// or has failed: then the error is a *PublishError. With a *OversizeError, an
// *oona.FieldError, ErrUnreachable or ErrClosed nothing was sent. A
// *PartitionsError may be that of some messages only: see PublisherOptions.Pin.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
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
	c, err := p.begin()
	if err != nil {
		return err
	}
	defer c.inFlight.Done()
	if p.pin != nil && p.pin.topic == topic {
		if err := p.pin.look(c.client); err != nil {
			return err
		}
	}
	if !p.opts.Ordered {
		watchdog := time.AfterFunc(p.opts.Patience+watchdogGrace, func() { p.giveUp(c) })
		defer watchdog.Stop()
	}
	if err := c.producer.SendMessages(records); err != nil {
		return publishError(topic, records, err)
	}
	return nil
}

// begin returns the connection for a call, which counts as on its way.
func (p *Publisher) begin() (*connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if p.current == nil {
		if p.lost != nil && time.Since(p.lostAt) < time.Second {
			return nil, p.lost // those that queued while it was tried
		}
		if p.current, p.lost = openConnection(p.cfg, p.opts, p.pin); p.lost != nil {
			p.lostAt = time.Now()
			return nil, p.lost
		}
	}
	p.current.inFlight.Add(1)
	return p.current, nil
}

// Pinned returns nil while the topic of PublisherOptions.Pin has the number of
// partitions that it had, as far as is known, and then a *PartitionsError.
func (p *Publisher) Pinned() error {
	p.mu.Lock()
	c := p.current
	p.mu.Unlock()
	switch {
	case p.pin == nil:
		return nil
	case c == nil: // the next connection looks
		return p.pin.check(p.pin.partitions)
	}
	return p.pin.look(c.client)
}

// giveUp lets all calls on a connection fail, and the next one connect anew.
func (p *Publisher) giveUp(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != c { // another call has done it, or Close does
		return
	}
	p.current = nil
	p.retiring.Go(func() { c.close(0) }) //nolint:errcheck // it is given up as it is
}

// Close waits a few seconds for records on their way, lets the rest fail, and
// disconnects. Further calls return what the first did.
func (p *Publisher) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		c := p.current
		p.closed, p.current = true, nil
		p.mu.Unlock()
		if c != nil {
			if err := c.close(closeGrace); err != nil {
				p.closeErr = fmt.Errorf("close the publisher: %w", err)
			}
		}
		p.retiring.Wait()
	})
	return p.closeErr
}
