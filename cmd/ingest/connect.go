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

// connecting is a publisher of an ingest with a spool, which starts also if the bus is
// away: it connects when the bus is there. Until then, Publish returns bus.ErrUnreachable.
type connecting struct {
	connect func(context.Context) (bus.PinnedPublisher, error)
	logger  *slog.Logger

	mu        sync.Mutex
	publisher bus.PinnedPublisher // nil: not connected yet
	cause     error               // why not
}

// start tries to connect. It returns an error unless the bus is away.
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

// Run connects if start has found the bus away. It returns an error if something else than
// the bus is wrong, as at a start with the bus there.
func (c *connecting) Run(ctx context.Context) error {
	if c.connected() != nil {
		<-ctx.Done()
		return nil
	}
	c.logger.Warn("the bus is away; ingest starts, and keeps frames in the spool until it is there", "err", c.cause)
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
		return fmt.Errorf("publish to %s: ingest has not been connected since it started: %w", topic, bus.ErrUnreachable)
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
