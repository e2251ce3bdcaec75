package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// connecting is the publisher of an ingest with a spool. Such an ingest starts even if the bus does
// not answer, and connects when it does. Until then, Publish returns bus.ErrUnreachable.
type connecting struct {
	connect func(context.Context) (bus.PinnedPublisher, error)
	logger  *slog.Logger

	mu        sync.Mutex
	publisher bus.PinnedPublisher // nil: not connected yet
	cause     error               // why it is not connected
}

// start tries to connect. If the bus does not answer, it returns nil. It returns any other error.
func (c *connecting) start(ctx context.Context) error {
	publisher, err := c.connect(ctx)
	if err != nil && !errors.Is(err, bus.ErrUnreachable) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.publisher, c.cause = publisher, err
	return nil
}

// retryConnect is the pause between two attempts to connect.
const retryConnect = time.Second

// Run connects to the bus if start could not. If the bus answers and there is another error, Run
// returns it, as start would have done.
func (c *connecting) Run(ctx context.Context) error {
	if c.connected() != nil {
		<-ctx.Done()
		return nil
	}
	c.logger.Warn("the bus does not answer; ingest starts, and keeps frames in the spool until it does", "err", c.cause)
	for c.connected() == nil {
		if !bus.Pause(ctx, retryConnect) {
			return nil
		}
		if err := c.start(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	c.logger.Info("ingest has connected to the bus")
	<-ctx.Done()
	return nil
}

func (c *connecting) connected() bus.PinnedPublisher {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.publisher
}

func (c *connecting) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	p := c.connected()
	if p == nil {
		return fmt.Errorf("publish to %s: ingest has not yet connected to the bus since it started: %w", topic, bus.ErrUnreachable)
	}
	return p.Publish(ctx, topic, messages...)
}

func (c *connecting) Pinned() error {
	if p := c.connected(); p != nil {
		return p.Pinned()
	}
	return nil
}

func (c *connecting) Close() error {
	if p := c.connected(); p != nil {
		return p.Close()
	}
	return nil
}
