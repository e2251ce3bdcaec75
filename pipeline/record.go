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

// SideMessage copies a record and adds why it is in a side topic and where it was:
// key, value, time and headers are unchanged.
func SideMessage(msg *message.Message, at bus.Position, why Rejection) *message.Message {
	to := bus.Target{Key: at.Key, Time: at.Appended}
	if to.Time == 0 { // a Target without a time is given that of its publishing
		to.Time = 1
	}
	out := bus.NewMessage(msg.Payload, to)
	maps.Copy(out.Metadata, msg.Metadata)
	out.Metadata[oona.HeaderErrorException] = why.Reason
	out.Metadata[oona.HeaderErrorMessage] = why.Detail
	out.Metadata[oona.HeaderErrorTopic] = at.Topic
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
