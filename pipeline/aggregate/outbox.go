package aggregate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// outbox keeps what must be published until the bus has acknowledged it, in
// order within each topic.
type outbox struct {
	publisher message.Publisher
	pending   []topicMessages
	// dropped is told of a message that the bus will never take.
	dropped func(topic string, msg *message.Message, err error)
}

type topicMessages struct {
	topic    string
	messages []*message.Message
}

// tooLarge is an error of a publisher whose bus will never take a message
// because of its size.
type tooLarge interface {
	error
	TooLarge() bool
}

func isTooLarge(err error) bool {
	large, ok := errors.AsType[tooLarge](err)
	return ok && large.TooLarge()
}

func (o *outbox) add(topic string, msg *message.Message) {
	for i := range o.pending {
		if o.pending[i].topic == topic {
			o.pending[i].messages = append(o.pending[i].messages, msg)
			return
		}
	}
	o.pending = append(o.pending, topicMessages{topic, []*message.Message{msg}})
}

func (o *outbox) len() int {
	n := 0
	for i := range o.pending {
		n += len(o.pending[i].messages)
	}
	return n
}

// flush publishes what is pending. After an error all of that topic is still
// pending and is published again: readers know repeats by their trigger or
// their origin.
func (o *outbox) flush() error {
	for i := range o.pending {
		batch := &o.pending[i]
		if len(batch.messages) == 0 {
			continue
		}
		err := o.publisher.Publish(batch.topic, batch.messages...)
		if isTooLarge(err) {
			err = o.flushSingly(batch)
		}
		if err != nil {
			return fmt.Errorf("publish %d messages to %s: %w", len(batch.messages), batch.topic, err)
		}
		clear(batch.messages)
		batch.messages = batch.messages[:0]
	}
	return nil
}

// flushSingly publishes a batch one by one, as one of it is too large for the
// bus: that one must not hold the others up for ever.
func (o *outbox) flushSingly(batch *topicMessages) error {
	for len(batch.messages) > 0 {
		msg := batch.messages[0]
		err := o.publisher.Publish(batch.topic, msg)
		if isTooLarge(err) && withoutPayload(msg) {
			err = o.publisher.Publish(batch.topic, msg)
		}
		if isTooLarge(err) {
			o.dropped(batch.topic, msg, err)
			err = nil
		}
		if err != nil {
			return err
		}
		batch.messages = batch.messages[1:]
	}
	return nil
}

// withoutPayload empties a side record and says so in it: the record itself is
// where the headers say that it was. False where there is nothing to empty.
func withoutPayload(msg *message.Message) bool {
	if msg.Metadata.Get(oona.HeaderErrorOffset) == "" || len(msg.Payload) == 0 {
		return false
	}
	msg.Metadata[oona.HeaderErrorMessage] += fmt.Sprintf(" (its %d bytes are too many for this topic and are left out: see its origin)", len(msg.Payload))
	msg.Payload = nil
	return true
}

// position is where a message stood in its partition.
type position struct {
	partition int32
	offset    int64
	appended  oona.Micros
}

// positionOf reads what the bus notes on every message.
func positionOf(msg *message.Message) (position, error) {
	partition, err := strconv.ParseInt(msg.Metadata.Get(oona.MetaPartition), 10, 32)
	if err != nil {
		return position{}, fmt.Errorf("message without a partition: %w", err)
	}
	offset, err := strconv.ParseInt(msg.Metadata.Get(oona.MetaOffset), 10, 64)
	if err != nil {
		return position{}, fmt.Errorf("message without an offset: %w", err)
	}
	appended, err := strconv.ParseInt(msg.Metadata.Get(oona.MetaTimestamp), 10, 64)
	if err != nil {
		return position{}, fmt.Errorf("message without an append time: %w", err)
	}
	return position{int32(partition), offset, oona.Micros(appended)}, nil
}

// sideMessage copies a record and adds why it is there and where it was: key,
// value, time and headers are unchanged.
func sideMessage(msg *message.Message, topic string, at position, side rejection) *message.Message {
	out := message.NewMessage("", msg.Payload)
	for name, value := range msg.Metadata {
		noted := strings.HasPrefix(name, "$") && !strings.HasPrefix(name, "$$") // where it was read
		if !noted || name == oona.MetaKey || name == oona.MetaTimestamp {
			out.Metadata[name] = value
		}
	}
	out.Metadata[oona.HeaderErrorException] = side.reason
	out.Metadata[oona.HeaderErrorMessage] = side.detail
	out.Metadata[oona.HeaderErrorTopic] = topic
	out.Metadata[oona.HeaderErrorPartition] = strconv.Itoa(int(at.partition))
	out.Metadata[oona.HeaderErrorOffset] = strconv.FormatInt(at.offset, 10)
	out.Metadata[oona.HeaderErrorStage] = "aggregate"
	out.Metadata[oona.HeaderErrorAttempts] = "1"
	return out
}
