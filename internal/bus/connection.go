package bus

import (
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
	producer sarama.SyncProducer
	inFlight sync.WaitGroup // calls of Publish
	abandon  *atomic.Bool   // set: retries follow each other without a pause
}

func openConnection(cfg Config, opts PublisherOptions, pinned *pin) (*connection, error) {
	c := &connection{abandon: new(atomic.Bool)}
	settings := cfg.producer(opts, c.abandon)
	settings.Producer.Partitioner = pinned.partitioner
	var err error
	if c.client, err = connect(cfg, settings); err != nil {
		return nil, err
	}
	if c.producer, err = sarama.NewSyncProducerFromClient(c.client); err != nil {
		return nil, errors.Join(unreachable(cfg, fmt.Errorf("make a producer: %w", err)), c.client.Close())
	}
	return c, nil
}

// close waits for calls on their way, at most for grace, lets the rest fail, and
// disconnects. No call may begin any more.
func (c *connection) close(grace time.Duration) error {
	done := make(chan struct{})
	go func() { c.inFlight.Wait(); close(done) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	var err error
	select {
	case <-done:
	case <-timer.C:
		c.abandon.Store(true)
		err = c.client.Close()
		<-done
	}
	err = errors.Join(err, c.producer.Close())
	if !c.client.Closed() {
		err = errors.Join(err, c.client.Close())
	}
	return err
}
