package bus

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Position has the properties of a message that was read from a bus, besides its payload and its
// headers.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
	Appended  oona.Micros // time of the record: the append time, or in a topic without append times the time that the writer has set
	Key       []byte      // nil if the record has no key
	// Incarnation is the incarnation of the partition's log. The bus does not know it: the
	// code that follows the log sets it in a copy of the Position.
	Incarnation oona.Incarnation
	// Consumer is the Consumer of the assignment for which the message was read, or nil
	// if there is no assignment.
	Consumer Consumer
}

// ErrNoPosition is returned for a message that was not read from a bus, or whose context
// was replaced.
var ErrNoPosition = errors.New("the message has no position: it was not read from a bus")

// WithPosition returns a context with a position.
func WithPosition(ctx context.Context, at Position) context.Context {
	return &positioned{ctx, at}
}

// PositionOf returns the position of a message, or ErrNoPosition.
func PositionOf(msg *message.Message) (Position, error) {
	at, ok := msg.Context().Value(positionKey{}).(*Position)
	if !ok {
		return Position{}, ErrNoPosition
	}
	return *at, nil
}

type positionKey struct{}

// positioned is a context with a position. It takes one allocation;
// context.WithValue would take two.
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

// Target has the properties of a message that will be published, besides its payload and its
// headers. With the zero Target, the record has no key and goes to any partition.
type Target struct {
	Key []byte // nil for a record without a key
	// Partition is the partition of the record, if Directed is set. Otherwise the key decides.
	Partition int32
	Directed  bool
	// Hashed means that Partition is a hash as returned by Hash. It is used instead of the key's hash.
	Hashed bool
	// Time is the time of the record, in topics without append times. 0 means the time of publishing.
	Time oona.Micros
}

// NewMessage returns a message with a target.
func NewMessage(payload []byte, to Target) *message.Message {
	msg := message.NewMessage("", payload)
	msg.SetContext(WithTarget(msg.Context(), to))
	return msg
}

// SizeOf returns how many bytes the payload and the headers of a message have together. The key is
// not a part of them.
func SizeOf(msg *message.Message) int {
	n := len(msg.Payload)
	for name, value := range msg.Metadata {
		n += len(name) + len(value)
	}
	return n
}

// WithTarget returns a context with a target.
func WithTarget(ctx context.Context, to Target) context.Context {
	return &targeted{ctx, to}
}

// TargetOf returns the target of a message. It is zero if the message has none.
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
