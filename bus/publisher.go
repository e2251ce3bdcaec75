package bus

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Publisher appends messages to topics. It is safe for concurrent use.
type Publisher interface {
	// Publish returns when every message was acknowledged by all replicas that must
	// have it, or has failed. When ctx ends, messages that were not sent yet fail.
	//
	// The messages of a partition are written in their order. After a message that
	// has failed, no other message of the call is written to its partition. A
	// message whose acknowledgement was lost may be written twice.
	//
	// If some messages have failed, the error wraps a *PublishError. It wraps
	// ErrTooLarge, ErrPartitions, ErrClosed or ErrUnreachable if that is the reason.
	// A message that is larger than PublisherOptions.MaxMessageBytes, or whose Target
	// is not valid (an *oona.FieldError), makes the call fail before anything is
	// written.
	Publish(ctx context.Context, topic string, messages ...*message.Message) error
	// Close waits a few seconds for messages that are being sent. Then they fail.
	Close() error
}

// PinnedPublisher is a Publisher that was made with PublisherOptions.
type PinnedPublisher interface {
	Publisher
	// Pinned returns a *PartitionsError if it is known that the topic of
	// PublisherOptions.Pin has another number of partitions than when the publisher was
	// made. It sends no request.
	Pinned() error
}
