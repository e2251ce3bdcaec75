package intake

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// AvroEvents decodes events: an object container file of events of seeds, or single objects that
// follow one another, which are events of seeds or ends of runs.
func AvroEvents(body []byte, b *Batch) *Refusal {
	var refused *Refusal
	each := func(e *oona.SeedEvent) error {
		if refused = b.takeEvent(e); refused != nil {
			return errRefused
		}
		return nil
	}
	ended := func(e *oona.RunEnd) error {
		if refused = b.takeRunEnd(e); refused != nil {
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
		err = avro.DecodeEvents(body, each, ended)
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

// JSONEvents decodes one event as an object, or an array of events. An object whose first name is
// "run_end" has the end of a run.
func (d *Decoder) JSONEvents(body []byte, b *Batch) *Refusal {
	return d.jsonBody(body, b, "event", d.jsonEvent)
}

func (d *Decoder) jsonEvent(b *Batch) *Refusal {
	if d.json.isRunEnd() {
		return d.jsonRunEnd(b)
	}
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
	if refused := b.mayTake(e.Run, e.Producer, cmp.Or(e.Validate(), notOfControl(e))); refused != nil {
		return refused
	}
	return b.addEvent(e)
}

// mayTake refuses an event that is one too many, that is wrong, or that the client may not send.
// wrong is the error of the event, or nil.
func (b *Batch) mayTake(run oona.RunID, producer oona.ProducerID, wrong error) *Refusal {
	at := len(b.Messages)
	if at == b.cfg.MaxFrames {
		return Refuse(ReasonTooLarge, "the request has more than %d events; spread them over several requests", b.cfg.MaxFrames)
	}
	if wrong != nil {
		return refuseEvent(at, wrong)
	}
	if b.PermitEvent != nil {
		if refused := b.PermitEvent(run, producer); refused != nil {
			return refused.OfEvent(at, refused.Field)
		}
	}
	return nil
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
	return b.addRecord(avro.AppendEvent(nil, e), cloudEvent{
		topic: b.cfg.Events.Event(e), key: oona.SeedKey(e.Run, e.Layer, e.Seed), run: e.Run, kind: e.Type(), at: e.At,
		id:      fmt.Sprintf("%s/%s/%d/%d/%d", e.Run, e.Layer, e.Seed, e.Incarnation, e.Sequence),
		subject: fmt.Sprintf("%s/%d", e.Layer, e.Seed),
	})
}

// cloudEvent has what the headers of an event and its place on the bus are made from.
type cloudEvent struct {
	topic   string
	key     []byte
	run     oona.RunID
	kind    string
	at      oona.Micros
	id      string
	subject string
}

// addRecord appends the record of an event, in the binary mode of CloudEvents. The partition
// depends on the run alone, so the events of a run in a topic have one order.
func (b *Batch) addRecord(value []byte, of cloudEvent) *Refusal {
	if refused := b.hold(cap(value) + MessageBytes); refused != nil {
		return refused
	}
	m := bus.NewMessage(value, bus.Target{Key: of.key, Partition: bus.Hash([]byte(of.run)), Hashed: true})
	m.Metadata.Set(oona.HeaderEventVersion, oona.EventVersion)
	m.Metadata.Set(oona.HeaderEventID, of.id)
	m.Metadata.Set(oona.HeaderEventSource, "urn:oona:run:"+string(of.run))
	m.Metadata.Set(oona.HeaderEventType, of.kind)
	m.Metadata.Set(oona.HeaderEventSubject, of.subject)
	m.Metadata.Set(oona.HeaderEventTime, of.at.Time().Format(time.RFC3339Nano))
	m.Metadata.Set(oona.HeaderContentType, oona.EventContentType)
	m.Metadata.Set(oona.HeaderPath, b.Path)
	if b.Trace != "" {
		m.Metadata.Set(oona.HeaderTraceparent, b.Trace)
	}
	b.Messages, b.Topics = append(b.Messages, m), append(b.Topics, of.topic)
	return nil
}
