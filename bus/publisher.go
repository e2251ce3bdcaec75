package bus

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Publisher appends messages to topics. It is safe for concurrent use.
type Publisher interface {
	// Publish returns when each message is acknowledged by all replicas that must
	// have it, or has failed; none is on its way any more. Messages that still wait
	// when ctx ends fail.
	//
	// Messages of a partition are written in their order, and behind one that has
	// failed no other of the call is written to its partition. One whose
	// acknowledgement was lost may be written twice.
	//
	// The error wraps ErrTooLarge, ErrPartitions, ErrClosed or ErrUnreachable where
	// that is why.
	Publish(ctx context.Context, topic string, messages ...*message.Message) error
	Close() error
}
