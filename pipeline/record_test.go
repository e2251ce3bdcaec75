package pipeline

import (
	"maps"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// A side message says where the record was, with the incarnation of its log if it
// is known. It does not say where the record was before.
func TestSideMessageSaysWhereTheRecordWas(t *testing.T) {
	for incarnation, want := range map[oona.Incarnation]string{0: "", 1_790_000_000_000_000: "1790000000000000"} {
		msg := message.NewMessage("", []byte("value"))
		msg.Metadata = message.Metadata{
			"$x": "stays", "other": "stays",
			oona.HeaderErrorIncarnation: "3", oona.HeaderErrorOffset: "1",
		}
		at := bus.Position{Topic: "topic", Partition: 2, Offset: 40, Appended: 5, Key: []byte("key"), Incarnation: incarnation}
		out := SideMessage(msg, at, Rejection{Stage: "aggregate", Reason: "late", Detail: "too late"})
		has := message.Metadata{
			"$x": "stays", "other": "stays",
			oona.HeaderErrorException: "late", oona.HeaderErrorMessage: "too late", oona.HeaderErrorTopic: "topic",
			oona.HeaderErrorPartition: "2", oona.HeaderErrorOffset: "40", oona.HeaderErrorStage: "aggregate", oona.HeaderErrorAttempts: "1",
		}
		if want != "" {
			has[oona.HeaderErrorIncarnation] = want
		}
		if to := bus.TargetOf(out); to.Directed || to.Time != 5 || string(to.Key) != "key" {
			t.Errorf("incarnation %d: its target is %+v", incarnation, to)
		}
		if !maps.Equal(out.Metadata, has) || string(out.Payload) != "value" {
			t.Errorf("incarnation %d: %q with %v\nwant %v", incarnation, out.Payload, out.Metadata, has)
		}
	}
}

// The time of a record is kept, also if it is 0.
func TestSideMessageKeepsTheTime(t *testing.T) {
	for _, appended := range []oona.Micros{0, 5, 1_790_000_000_000_000} {
		out := SideMessage(message.NewMessage("", nil), bus.Position{Topic: "topic", Appended: appended}, Rejection{})
		to := bus.TargetOf(out)
		if to.Time == 0 || to.Time.Time().UnixMilli() != appended.Time().UnixMilli() {
			t.Errorf("appended at %d: its target is %+v", appended, to)
		}
	}
}
