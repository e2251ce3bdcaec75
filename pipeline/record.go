package pipeline

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Rejection is why a record goes to a side topic.
type Rejection struct {
	Stage  string // that has rejected it
	Reason string // one word
	Detail string
}

// SideMessage returns a copy of a record for a side topic. Key, value, time and headers
// are unchanged; more headers say where the record was and why it was rejected.
func SideMessage(msg *message.Message, at bus.Position, why Rejection) *message.Message {
	to := bus.Target{Key: at.Key, Time: at.Appended}
	if to.Time == 0 { // in a Target that would be the time of publishing
		to.Time = 1
	}
	out := bus.NewMessage(msg.Payload, to)
	maps.Copy(out.Metadata, msg.Metadata)
	out.Metadata[oona.HeaderErrorException] = why.Reason
	out.Metadata[oona.HeaderErrorMessage] = why.Detail
	out.Metadata[oona.HeaderErrorTopic] = at.Topic
	out.Metadata[oona.HeaderErrorPartition] = strconv.Itoa(int(at.Partition))
	out.Metadata[oona.HeaderErrorOffset] = strconv.FormatInt(at.Offset, 10)
	delete(out.Metadata, oona.HeaderErrorIncarnation) // the record may have been in a side topic before
	if at.Incarnation != 0 {
		out.Metadata[oona.HeaderErrorIncarnation] = strconv.FormatInt(int64(at.Incarnation), 10)
	}
	out.Metadata[oona.HeaderErrorStage] = why.Stage
	out.Metadata[oona.HeaderErrorAttempts] = "1"
	return out
}

// WithoutPayload removes the payload of a side record and says so in its headers, which
// also say where the whole record is. It returns false if msg is no side record or has
// no payload.
func WithoutPayload(msg *message.Message) bool {
	if msg.Metadata.Get(oona.HeaderErrorOffset) == "" || len(msg.Payload) == 0 {
		return false
	}
	msg.Metadata[oona.HeaderErrorMessage] += fmt.Sprintf(" (the payload of %d bytes is too large for this topic and is left out; read the record at its origin)", len(msg.Payload))
	msg.Payload = nil
	return true
}
