package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// connection is a publisher's client and producer. sarama's producer cannot be
// told to let go of a record, but it does when its client is closed.
type connection struct {
	client   sarama.Client
	producer producer
	inFlight sync.WaitGroup     // calls of Publish
	abandon  context.CancelFunc // retries follow each other without a pause, or end
}

// producer is sarama's SyncProducer, or one that keeps the order.
type producer interface {
	SendMessages(records []*sarama.ProducerMessage) error
	Close() error
}

func openConnection(cfg Config, opts PublisherOptions, pinned *pin) (*connection, error) {
	closing, abandon := context.WithCancel(context.Background())
	c := &connection{abandon: abandon}
	settings := cfg.producer(closing, opts)
	settings.Producer.Partitioner = pinned.partitioner
	// Metadata is asked for often (Config.producer), but not to connect at first,
	// when calls wait for that, and not while closing.
	var connected atomic.Bool
	settings.Metadata.Retry.BackoffFunc = func(retries, _ int) time.Duration {
		if closing.Err() != nil || retries > 0 && !connected.Load() {
			return 2 * opts.Patience // more than Metadata.Timeout: it is the last
		}
		return settings.Metadata.Retry.Backoff
	}
	defer connected.Store(true)
	var err error
	if c.client, err = connect(cfg, settings); err != nil {
		abandon()
		return nil, err
	}
	if opts.Ordered {
		c.producer = &orderedProducer{
			client:      c.client,
			partitioner: settings.Producer.Partitioner,
			compression: settings.Producer.Compression,
			limit:       min(cmp.Or(opts.BatchBytes, orderedBatch), opts.MaxMessageBytes, orderedBatch),
			patience:    opts.Patience,
			closing:     closing,
		}
		return c, nil
	}
	if c.producer, err = sarama.NewSyncProducerFromClient(c.client); err != nil {
		abandon()
		return nil, errors.Join(unreachable(cfg, fmt.Errorf("make a producer: %w", err)), c.client.Close())
	}
	return c, nil
}

// close waits for calls on their way, at most for grace, lets the rest fail, and
// disconnects. No call may begin any more.
func (c *connection) close(grace time.Duration) error {
	defer c.abandon()
	done := make(chan struct{})
	go func() { c.inFlight.Wait(); close(done) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	var err error
	select {
	case <-done:
	case <-timer.C:
		c.abandon()
		err = c.client.Close()
		<-done
	}
	err = errors.Join(err, c.producer.Close())
	if !c.client.Closed() {
		err = errors.Join(err, c.client.Close())
	}
	return err
}
