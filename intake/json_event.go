package intake

import (
	"fmt"
	"math"
	"strconv"

	"github.com/morphogenetic/oona"
)

// eventFields are the fields of seed_event.v2.avsc. Those that have a default there are
// optional.
var eventFields = []jsonField[oona.SeedEvent]{
	{name: "run_id", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Run) }},
	{name: "layer_id", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Layer) }},
	{name: "seed_id", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return d.readSeed(&e.Seed) }},
	{name: "sequence", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.Sequence) }},
	{name: "at", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.At) }},
	{name: "step", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.Step) }},
	{name: "from_state", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readState(d, &e.From) }},
	{name: "to_state", read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readState(d, &e.To) }},
	{name: "reason", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Reason) }},
	{name: "evidence", optional: true, read: (*jsonDecoder).readEvidence},
	{name: "command_id", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Command) }},
	{name: "actor", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Actor) }},
	{name: "node", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Node) }},
	{name: "session", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.Session) }},
	{name: "epoch", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.Epoch) }},
	{name: "journal_index", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.JournalIndex) }},
	{name: "blueprint_id", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Blueprint) }},
	{name: "mark", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readName(d, oona.ParseEventMark, &e.Mark) }},
	{name: "trigger_position", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.TriggerPosition) }},
	{name: "trigger_index", optional: true, read: (*jsonDecoder).readTriggerIndex},
	{name: "incarnation", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.Incarnation) }},
	{name: "timeline", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Timeline) }},
	{name: "producer_id", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readID(d, &e.Producer) }},
	{name: "producer_epoch", optional: true, read: func(d *jsonDecoder, e *oona.SeedEvent) error { return readLong(d, &e.ProducerEpoch) }},
}

func readState(d *jsonDecoder, s *oona.State) (err error) {
	*s, err = d.state()
	return err
}

func (d *jsonDecoder) readTriggerIndex(e *oona.SeedEvent) error {
	n, err := d.integer(32)
	e.TriggerIndex = int32(n)
	return err
}

// readName reads a value by its name.
func readName[T any](d *jsonDecoder, parse func(name string) (T, error), v *T) error {
	name, err := d.text()
	if err != nil {
		return err
	}
	if *v, err = parse(clip(name)); err != nil {
		return &oona.FieldError{Reason: err.Error()}
	}
	return nil
}

// readEvidence reads an object of numbers.
func (d *jsonDecoder) readEvidence(e *oona.SeedEvent) error {
	if d.next() != '{' {
		return d.mismatch("an object of numbers")
	}
	d.at++
	e.Evidence = make(map[string]float64)
	for d.next() != '}' {
		if d.next() == ',' {
			d.at++
		}
		key, err := d.text()
		if err != nil {
			return err
		}
		name := string(key)
		if _, twice := e.Evidence[name]; twice {
			return &oona.FieldError{Field: unknownName(key), Reason: "is given twice"}
		}
		if len(e.Evidence) == oona.MaxEvidence {
			return &oona.FieldError{Reason: fmt.Sprintf("has more than %d entries, which is the maximum", oona.MaxEvidence)}
		}
		d.next()
		d.at++ // skip the colon
		if e.Evidence[name], err = d.double(); err != nil {
			return within(err, unknownName(key))
		}
	}
	d.at++
	return nil
}

// double is like sample, for a float64.
func (r *jsonReader) double() (float64, error) {
	if !r.isNumber() {
		v, err := r.sample()
		return float64(v), err
	}
	digits := r.number()
	v, err := strconv.ParseFloat(string(digits), 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, &oona.FieldError{Reason: fmt.Sprintf("is %s, which does not fit a float64", clip(digits))}
	}
	return v, nil
}
