package intake

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// runEndName is the name that marks the end of a run among events in JSON.
const runEndName = "run_end"

// runEndFields are the fields of run_end.v1.avsc. Those that have a default there are optional.
var runEndFields = []jsonField[oona.RunEnd]{
	{name: "run_id", read: func(d *jsonDecoder, e *oona.RunEnd) error { return readID(d, &e.Run) }},
	{name: "at", read: func(d *jsonDecoder, e *oona.RunEnd) error { return readLong(d, &e.At) }},
	{name: "step", optional: true, read: func(d *jsonDecoder, e *oona.RunEnd) error { return readLong(d, &e.Step) }},
	{name: "outcome", read: func(d *jsonDecoder, e *oona.RunEnd) error { return readName(d, oona.ParseRunOutcome, &e.Outcome) }},
	{name: "reason", optional: true, read: func(d *jsonDecoder, e *oona.RunEnd) error { return readID(d, &e.Reason) }},
	{name: "timeline", optional: true, read: func(d *jsonDecoder, e *oona.RunEnd) error { return readID(d, &e.Timeline) }},
	{name: "producer_id", optional: true, read: func(d *jsonDecoder, e *oona.RunEnd) error { return readID(d, &e.Producer) }},
	{name: "producer_epoch", optional: true, read: func(d *jsonDecoder, e *oona.RunEnd) error { return readLong(d, &e.ProducerEpoch) }},
}

// markedRunEnd is the object around the end of a run.
var markedRunEnd = []jsonField[oona.RunEnd]{{name: runEndName, read: func(d *jsonDecoder, e *oona.RunEnd) error {
	return readObject(d, "the end of a run", runEndFields, e)
}}}

// isRunEnd reports whether the next value is the object around the end of a run. It reads nothing.
func (r *jsonReader) isRunEnd() bool {
	began := r.at
	defer func() { r.at = began }()
	if r.next() != '{' {
		return false
	}
	r.at++
	if r.next() != '"' {
		return false
	}
	name, err := r.text()
	return err == nil && string(name) == runEndName
}

func (d *Decoder) jsonRunEnd(b *Batch) *Refusal {
	var e oona.RunEnd
	if err := readObject(&d.json, "the object around "+runEndName, markedRunEnd, &e); err != nil {
		return refuseEvent(len(b.Messages), err)
	}
	return b.takeRunEnd(&e)
}

// takeRunEnd validates the end of a run and adds it to the batch. Its identity is the run, the
// producer, its epoch and the time.
func (b *Batch) takeRunEnd(e *oona.RunEnd) *Refusal {
	if refused := b.mayTake(e.Run, e.Producer, e.Validate()); refused != nil {
		return refused
	}
	return b.addRecord(avro.AppendRunEnd(nil, e), cloudEvent{
		topic: b.cfg.Events.RunEnded, key: []byte(e.Run), run: e.Run, kind: e.Type(), at: e.At,
		id:      fmt.Sprintf("%s/%s/%d/%d", e.Run, e.Producer, e.ProducerEpoch, e.At),
		subject: string(e.Run),
	})
}
