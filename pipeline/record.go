package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Position is where a message stood in its partition.
type Position struct {
	Partition int32
	Offset    int64
	Appended  oona.Micros
	// Incarnation is that of the partition's log. The message does not tell
	// it: who follows the log sets it.
	Incarnation oona.Incarnation
}

// PlaceOf reads the partition and the offset that the bus notes on every message.
func PlaceOf(msg *message.Message) (partition int32, offset int64, err error) {
	n, err := strconv.ParseInt(msg.Metadata.Get(oona.MetaPartition), 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("message without a partition: %w", err)
	}
	offset, err = strconv.ParseInt(msg.Metadata.Get(oona.MetaOffset), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("message without an offset: %w", err)
	}
	return int32(n), offset, nil
}

// PositionOf reads all that the bus notes on every message.
func PositionOf(msg *message.Message) (Position, error) {
	partition, offset, err := PlaceOf(msg)
	if err != nil {
		return Position{}, err
	}
	appended, err := strconv.ParseInt(msg.Metadata.Get(oona.MetaTimestamp), 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("message without an append time: %w", err)
	}
	return Position{Partition: partition, Offset: offset, Appended: oona.Micros(appended)}, nil
}

// Rejection is why a record goes to a side topic.
type Rejection struct {
	Stage  string // that has rejected it
	Reason string // one word
	Detail string
}

// SideMessage copies a record of a topic and adds why it is in a side topic and
// where it was: key, value, time and headers are unchanged.
func SideMessage(msg *message.Message, topic string, at Position, why Rejection) *message.Message {
	out := message.NewMessage("", msg.Payload)
	for name, value := range msg.Metadata {
		noted := strings.HasPrefix(name, "$") && !strings.HasPrefix(name, "$$") // where it was read
		if !noted || name == oona.MetaKey || name == oona.MetaTimestamp {
			out.Metadata[name] = value
		}
	}
	out.Metadata[oona.HeaderErrorException] = why.Reason
	out.Metadata[oona.HeaderErrorMessage] = why.Detail
	out.Metadata[oona.HeaderErrorTopic] = topic
	out.Metadata[oona.HeaderErrorPartition] = strconv.Itoa(int(at.Partition))
	out.Metadata[oona.HeaderErrorOffset] = strconv.FormatInt(at.Offset, 10)
	delete(out.Metadata, oona.HeaderErrorIncarnation) // of the record itself, where it was in a side topic before
	if at.Incarnation != 0 {
		out.Metadata[oona.HeaderErrorIncarnation] = strconv.FormatInt(int64(at.Incarnation), 10)
	}
	out.Metadata[oona.HeaderErrorStage] = why.Stage
	out.Metadata[oona.HeaderErrorAttempts] = "1"
	return out
}

// WithoutPayload empties a side record and says so in it: the record itself is
// where the headers say that it was. False where there is nothing to empty.
func WithoutPayload(msg *message.Message) bool {
	if msg.Metadata.Get(oona.HeaderErrorOffset) == "" || len(msg.Payload) == 0 {
		return false
	}
	msg.Metadata[oona.HeaderErrorMessage] += fmt.Sprintf(" (its %d bytes are too many for this topic and are left out: see its origin)", len(msg.Payload))
	msg.Payload = nil
	return true
}

// IsTooLarge reports whether err is of a publisher whose bus will never take a
// message because of its size.
func IsTooLarge(err error) bool {
	large, ok := errors.AsType[interface {
		error
		TooLarge() bool
	}](err)
	return ok && large.TooLarge()
}
