package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Outbox keeps messages until the bus has acknowledged them, in order within each
// topic. It is not safe for concurrent use.
type Outbox struct {
	Publisher bus.Publisher
	// Dropped is called for a message that is too large for its topic.
	Dropped func(topic string, msg *message.Message, err error)

	pending []topicMessages
}

type topicMessages struct {
	topic    string
	messages []*message.Message
}

// Add appends a message for a topic.
func (o *Outbox) Add(topic string, msg *message.Message) {
	for i := range o.pending {
		if o.pending[i].topic == topic {
			o.pending[i].messages = append(o.pending[i].messages, msg)
			return
		}
	}
	o.pending = append(o.pending, topicMessages{topic, []*message.Message{msg}})
}

// Len returns how many messages are pending.
func (o *Outbox) Len() int {
	n := 0
	for i := range o.pending {
		n += len(o.pending[i].messages)
	}
	return n
}

// Flush publishes the pending messages. After an error all messages of that topic are
// still pending and are published again. Readers recognise repeats by their trigger
// or their origin.
func (o *Outbox) Flush(ctx context.Context) error {
	for i := range o.pending {
		batch := &o.pending[i]
		if len(batch.messages) == 0 {
			continue
		}
		err := o.Publisher.Publish(ctx, batch.topic, batch.messages...)
		if errors.Is(err, bus.ErrTooLarge) {
			err = o.flushSingly(ctx, batch)
		}
		if err != nil {
			return fmt.Errorf("publish %d messages to %s: %w", len(batch.messages), batch.topic, err)
		}
		clear(batch.messages)
		batch.messages = batch.messages[:0]
	}
	return nil
}

// flushSingly publishes the messages of a batch one by one. It is for a batch that has
// a message which is too large, so that the others are published all the same.
func (o *Outbox) flushSingly(ctx context.Context, batch *topicMessages) error {
	for len(batch.messages) > 0 {
		msg := batch.messages[0]
		err := o.Publisher.Publish(ctx, batch.topic, msg)
		if errors.Is(err, bus.ErrTooLarge) && WithoutPayload(msg) {
			err = o.Publisher.Publish(ctx, batch.topic, msg)
		}
		if errors.Is(err, bus.ErrTooLarge) {
			o.Dropped(batch.topic, msg, err)
			err = nil
		}
		if err != nil {
			return err
		}
		batch.messages = batch.messages[1:]
	}
	return nil
}
