package intake

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// AvroEvents decodes events: an object container file, or single objects that follow one
// another.
func AvroEvents(body []byte, b *Batch) *Refusal {
	var refused *Refusal
	each := func(e *oona.SeedEvent) error {
		if refused = b.takeEvent(e); refused != nil {
			return errRefused
		}
		return nil
	}
	reserve := func(bytes int) error {
		if refused = b.hold(bytes); refused != nil {
			return errRefused
		}
		return nil
	}
	var err error
	if IsContainer(body) {
		err = avro.DecodeEventContainer(body, int(b.cfg.MaxDecompressedBytes), reserve, each)
	} else {
		err = avro.DecodeEvents(body, each)
	}
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, avro.ErrInflated):
		return DecompressedTooLarge(b.cfg.MaxDecompressedBytes, true)
	case err != nil:
		return refuseEvent(len(b.Messages), err)
	case len(b.Messages) == 0:
		return Refuse(ReasonUndecodable, "the file has no events; send at least one")
	}
	return nil
}

// JSONEvents decodes one event as an object, or an array of events.
func (d *Decoder) JSONEvents(body []byte, b *Batch) *Refusal {
	return d.jsonBody(body, b, "event", d.jsonEvent)
}

func (d *Decoder) jsonEvent(b *Batch) *Refusal {
	var e oona.SeedEvent
	if err := readObject(&d.json, "an event", eventFields, &e); err != nil {
		return refuseEvent(len(b.Messages), err)
	}
	return b.takeEvent(&e)
}

func refuseEvent(index int, err error) *Refusal {
	refused := refuseValue(err)
	return refused.OfEvent(index, refused.Field)
}

// takeEvent validates an event and adds it to the batch.
func (b *Batch) takeEvent(e *oona.SeedEvent) *Refusal {
	at := len(b.Messages)
	if at == b.cfg.MaxFrames {
		return Refuse(ReasonTooLarge, "the request has more than %d events; spread them over several requests", b.cfg.MaxFrames)
	}
	if err := e.Validate(); err != nil {
		return refuseEvent(at, err)
	}
	if err := notOfControl(e); err != nil {
		return refuseEvent(at, err)
	}
	if b.PermitEvent != nil {
		if refused := b.PermitEvent(e); refused != nil {
			return refused.OfEvent(at, refused.Field)
		}
	}
	return b.addEvent(e)
}

// notOfControl returns an error for an event that claims to come from a control log. The
// control plane publishes its own events, and readers drop those that repeat. If an event of
// a trainer looked like one of them, readers might drop it.
func notOfControl(e *oona.SeedEvent) error {
	for _, n := range []struct {
		field string
		value int64
	}{{"trigger_position", e.TriggerPosition}, {"trigger_index", int64(e.TriggerIndex)}, {"incarnation", int64(e.Incarnation)}} {
		if n.value != 0 {
			return &oona.FieldError{Field: n.field, Reason: fmt.Sprintf("is %d; only the control plane sets it, so leave it out", n.value)}
		}
	}
	return nil
}

// addEvent appends the record of a valid event. The record has the latest version of the
// schema whatever was received, so the same event has the same bytes however it was sent.
func (b *Batch) addEvent(e *oona.SeedEvent) *Refusal {
	value := avro.AppendEvent(nil, e)
	if refused := b.hold(cap(value) + MessageBytes); refused != nil {
		return refused
	}
	m := bus.NewMessage(value, bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: bus.Hash([]byte(e.Run)), Hashed: true})
	m.Metadata.Set(oona.HeaderEventVersion, oona.EventVersion)
	m.Metadata.Set(oona.HeaderEventID, fmt.Sprintf("%s/%s/%d/%d/%d", e.Run, e.Layer, e.Seed, e.Incarnation, e.Sequence))
	m.Metadata.Set(oona.HeaderEventSource, "urn:oona:run:"+string(e.Run))
	m.Metadata.Set(oona.HeaderEventType, e.Type())
	m.Metadata.Set(oona.HeaderEventSubject, fmt.Sprintf("%s/%d", e.Layer, e.Seed))
	m.Metadata.Set(oona.HeaderEventTime, e.At.Time().Format(time.RFC3339Nano))
	m.Metadata.Set(oona.HeaderContentType, oona.EventContentType)
	m.Metadata.Set(oona.HeaderPath, b.Path)
	if b.Trace != "" {
		m.Metadata.Set(oona.HeaderTraceparent, b.Trace)
	}
	b.Messages, b.Topics = append(b.Messages, m), append(b.Topics, b.cfg.Events.Event(e))
	return nil
}
