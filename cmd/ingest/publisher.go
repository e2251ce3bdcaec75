package main

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/remedy"
)

// advised is a publisher whose errors say what to do. Clients get them, too.
type advised struct{ bus.PinnedPublisher }

func (p advised) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	return remedy.Add(p.PinnedPublisher.Publish(ctx, topic, messages...))
}

func (p advised) Pinned() error { return remedy.Add(p.PinnedPublisher.Pinned()) }
