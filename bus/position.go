package bus

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Position is what the bus knows of a message that was read, besides its
// payload and its headers.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
	Appended  oona.Micros // when the record was appended, by the topic's clock
	Key       []byte      // nil: the record has no key
	// Incarnation is that of the partition's log. The bus does not know it:
	// whoever follows the log sets it in a copy.
	Incarnation oona.Incarnation
	// Consumer is that of the assignment under which the message was read; nil
	// where it was read without one.
	Consumer Consumer
}

// ErrNoPosition is returned for a message that was not read from a bus, or whose
// context was replaced.
var ErrNoPosition = errors.New("the message has no position: it was not read from a bus")

// WithPosition returns a context that holds a position.
func WithPosition(ctx context.Context, at Position) context.Context {
	return &positioned{ctx, at}
}

// PositionOf returns where a message was read. Its error is ErrNoPosition.
func PositionOf(msg *message.Message) (Position, error) {
	at, ok := msg.Context().Value(positionKey{}).(*Position)
	if !ok {
		return Position{}, ErrNoPosition
	}
	return *at, nil
}

type positionKey struct{}

// positioned is a context with a position: one allocation, where
// context.WithValue takes two.
type positioned struct {
	context.Context
	at Position
}

func (p *positioned) Value(key any) any {
	if key == (positionKey{}) {
		return &p.at
	}
	return p.Context.Value(key)
}

// Target is what the bus must know of a message that is to be published, besides
// its payload and its headers. The zero Target is a record without a key, in any
// partition.
type Target struct {
	Key []byte // nil: none
	// Partition is where the message goes if Directed; else its key decides.
	Partition int32
	Directed  bool
	// Time is that of the record, in topics whose times are the writers'; 0: when
	// it is published.
	Time oona.Micros
}

// NewMessage returns a message with a target.
func NewMessage(payload []byte, to Target) *message.Message {
	msg := message.NewMessage("", payload)
	msg.SetContext(WithTarget(msg.Context(), to))
	return msg
}

// WithTarget returns a context that holds a target.
func WithTarget(ctx context.Context, to Target) context.Context {
	return &targeted{ctx, to}
}

// TargetOf returns the target of a message, the zero Target if it has none.
func TargetOf(msg *message.Message) Target {
	if to, ok := msg.Context().Value(targetKey{}).(*Target); ok {
		return *to
	}
	return Target{}
}

type targetKey struct{}

type targeted struct {
	context.Context
	to Target
}

func (t *targeted) Value(key any) any {
	if key == (targetKey{}) {
		return &t.to
	}
	return t.Context.Value(key)
}
