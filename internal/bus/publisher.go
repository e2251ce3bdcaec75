package bus

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	// Compression of batches: "lz4", or "none" or "".
	Compression string
	// Patience is how long records are tried again while the bus refuses
	// connections or has no leader. A bus that accepts and does not answer
	// takes several times as long. 0: 5 seconds.
	//
	// Give hours where the order of records within a partition matters: when
	// a batch fails for good, the next one may still succeed.
	Patience time.Duration
}

const (
	defaultMaxMessage = 1 << 20
	defaultPatience   = 5 * time.Second
	batchOverhead     = 61 // header of a record batch
	maxBackoff        = 500 * time.Millisecond
	// closeGrace is how long Close waits for records on their way.
	closeGrace = 5 * time.Second
)

// Validate returns an *oona.FieldError for the first option that is wrong.
func (o PublisherOptions) Validate() error {
	switch {
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > 0 && o.MaxMessageBytes < 1<<10 || o.MaxMessageBytes > 64<<20:
		return &oona.FieldError{Field: "max-message-bytes", Reason: fmt.Sprintf("is %d; give 1024 to %d", o.MaxMessageBytes, 64<<20)}
	case o.Compression != "" && o.Compression != "none" && o.Compression != "lz4":
		return &oona.FieldError{Field: "compression", Reason: fmt.Sprintf("is %q; give none or lz4", o.Compression)}
	case o.Patience < 0 || o.Patience > 24*time.Hour:
		return &oona.FieldError{Field: "patience", Reason: fmt.Sprintf("is %s; give at most a day", o.Patience)}
	}
	return nil
}

// producer returns the configuration of a publisher. Once closing is set,
// retries follow each other without a pause, until they fail on a client that
// is closed: sarama has no other way to end them.
func (c Config) producer(o PublisherOptions, closing *atomic.Bool) *sarama.Config {
	pause := func(d time.Duration) time.Duration {
		if closing.Load() {
			return 0
		}
		return d
	}
	s := c.client()
	s.Net.MaxOpenRequests = 1 // Idempotent demands it
	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.Timeout = 3 * time.Second
	s.Producer.Partitioner = newPartitioner
	s.Producer.MaxMessageBytes = o.MaxMessageBytes - batchOverhead
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration { return pause(backoff(retries)) }
	s.Producer.Retry.Max = retriesWithin(o.Patience)
	if o.Compression == "lz4" {
		s.Producer.Compression = sarama.CompressionLZ4
	}
	if o.Patience > time.Minute {
		// The loss of a leader would fail a batch at once.
		s.Metadata.Retry.Max = int(o.Patience / maxBackoff)
		s.Metadata.Retry.BackoffFunc = func(int, int) time.Duration { return pause(maxBackoff) }
	}
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

// Publisher publishes to Kafka: idempotent, acknowledged by all in-sync
// replicas, with a key hashed as Java's clients do. It is safe for concurrent
// use.
type Publisher struct {
	maxMessage int
	client     sarama.Client
	producer   sarama.SyncProducer

	mu       sync.Mutex
	closed   bool
	inFlight sync.WaitGroup
	abandon  *atomic.Bool // what is on its way

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
	// A patient client would try for hours to find a first broker.
	probe, err := connect(cfg, cfg.client())
	if err != nil {
		return nil, err
	}
	if err := probe.Close(); err != nil {
		return nil, fmt.Errorf("disconnect from %v: %w", cfg.Brokers, err)
	}
	abandon := new(atomic.Bool)
	client, err := connect(cfg, cfg.producer(opts, abandon))
	if err != nil {
		return nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a producer: %w", err), client.Close())
	}
	return &Publisher{maxMessage: opts.MaxMessageBytes, client: client, producer: producer, abandon: abandon}, nil
}

// Publish publishes messages as one batch and returns when each is acknowledged
// or has failed: then the error is a *PublishError. With a *OversizeError, an
// *oona.FieldError or ErrClosed nothing was sent.
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
		if size := r.ByteSize(2) + batchOverhead; size > p.maxMessage {
			return &OversizeError{Topic: topic, Index: i, Bytes: size, Limit: p.maxMessage}
		}
		records[i] = r
	}
	if !p.begin() {
		return ErrClosed
	}
	defer p.inFlight.Done()
	err := p.producer.SendMessages(records)
	if err == nil {
		return nil
	}
	return publishError(topic, records, err)
}

func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.inFlight.Add(1)
	return true
}

// Close waits a few seconds for records on their way, lets the rest fail, and
// disconnects. Further calls return what the first did.
func (p *Publisher) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		done := make(chan struct{})
		go func() { p.inFlight.Wait(); close(done) }()
		grace := time.NewTimer(closeGrace)
		defer grace.Stop()
		select {
		case <-done:
		case <-grace.C:
			p.abandon.Store(true)
			p.closeErr = p.client.Close()
			<-done
		}
		p.closeErr = errors.Join(p.closeErr, p.producer.Close())
		if !p.client.Closed() {
			p.closeErr = errors.Join(p.closeErr, p.client.Close())
		}
		if p.closeErr != nil {
			p.closeErr = fmt.Errorf("close the publisher: %w", p.closeErr)
		}
	})
	return p.closeErr
}
