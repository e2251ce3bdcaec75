package intake

import (
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

func eventBody(change ...func(*oona.SeedEvent)) (body []byte) {
	for i, with := range change {
		e := oona.SeedEvent{Run: "r", Layer: "l", Seed: 1, Sequence: int64(i), At: 1_790_000_001_000_001, From: oona.Dormant, To: oona.Germinated}
		with(&e)
		body = avro.AppendEvent(body, &e)
	}
	return body
}

func asItIs(*oona.SeedEvent) {}

// TestEventTime: the header has the time of the event with its microseconds.
func TestEventTime(t *testing.T) {
	b := config.NewBatch()
	if refused := AvroEvents(eventBody(asItIs), b); refused != nil {
		t.Fatal(refused)
	}
	if got := b.Messages[0].Metadata.Get(oona.HeaderEventTime); got != "2026-09-21T14:13:21.000001Z" {
		t.Errorf("the time is %s", got)
	}
}

// TestMostEvents: the limit of events in a body is exact.
func TestMostEvents(t *testing.T) {
	b := config.NewBatch()
	if refused := AvroEvents(eventBody(asItIs, asItIs), b); refused != nil || len(b.Messages) != config.MaxFrames {
		t.Errorf("%d events: %+v", len(b.Messages), refused)
	}
	if refused := AvroEvents(eventBody(asItIs, asItIs, asItIs), config.NewBatch()); refused == nil || refused.Reason != ReasonTooLarge {
		t.Errorf("one more: %+v", refused)
	}
}

// TestEventsOfTheControlPlane: an event of a trainer has none of the fields of a control log.
func TestEventsOfTheControlPlane(t *testing.T) {
	for field, with := range map[string]func(*oona.SeedEvent){
		"trigger_position": func(e *oona.SeedEvent) { e.TriggerPosition = 1 },
		"trigger_index":    func(e *oona.SeedEvent) { e.TriggerIndex = 1 },
		"incarnation":      func(e *oona.SeedEvent) { e.Incarnation = 1 },
	} {
		refused := AvroEvents(eventBody(asItIs, with), config.NewBatch())
		if refused == nil || refused.Reason != ReasonInvalid || refused.Field != field || refused.Event == nil || *refused.Event != 1 {
			t.Errorf("%s: %+v", field, refused)
		}
	}
}
