package avro

import (
	"fmt"
	"maps"
	"slices"

	"github.com/morphogenetic/oona"
)

// seedEventV1 is the fingerprint of seed_event.v1.avsc, which AppendEvent
// writes.
const seedEventV1 = 0xe6dbe9d302550dfc

// AppendEvent appends e in single-object encoding. The evidence is in the
// order of its names, so that equal events give equal bytes.
func AppendEvent(dst []byte, e *oona.SeedEvent) []byte {
	dst = appendFraming(dst, seedEventV1)
	dst = appendText(dst, e.Run)
	dst = appendText(dst, e.Layer)
	for _, v := range [...]int64{
		int64(e.Seed), e.Sequence, int64(e.At), e.Step, int64(e.From), int64(e.To),
	} {
		dst = appendLong(dst, v)
	}
	dst = appendText(dst, e.Reason)
	return appendArray(dst, slices.Sorted(maps.Keys(e.Evidence)), func(dst []byte, name string) []byte {
		return appendDouble(appendText(dst, name), e.Evidence[name])
	})
}

// DecodeEvent decodes the event at the start of data, of any published
// version, and returns what follows it. e shares nothing with data; on an
// error it is as it was. Where the evidence has a name twice, the last value
// counts.
func DecodeEvent(data []byte, e *oona.SeedEvent) (rest []byte, err error) {
	v, err := published.find(data, seedEvent)
	if err != nil {
		return nil, err
	}
	var w wireEvent
	if rest, err = v.decode(data, &w); err != nil {
		return nil, err
	}
	if err = w.event(e); err != nil {
		return nil, err
	}
	return rest, nil
}

// wireEvent has the fields of the latest SeedEvent, for twmb/avro.
type wireEvent struct {
	Run      oona.RunID         `avro:"run_id"`
	Layer    oona.LayerID       `avro:"layer_id"`
	Seed     oona.SeedID        `avro:"seed_id"`
	Sequence int64              `avro:"sequence"`
	At       oona.Micros        `avro:"at"`
	Step     int64              `avro:"step"`
	From     int32              `avro:"from_state"`
	To       int32              `avro:"to_state"`
	Reason   string             `avro:"reason"`
	Evidence map[string]float64 `avro:"evidence"`
}

func (w *wireEvent) event(e *oona.SeedEvent) error {
	from, err := stateOf("from_state", w.From)
	if err != nil {
		return err
	}
	to, err := stateOf("to_state", w.To)
	if err != nil {
		return err
	}
	*e = oona.SeedEvent{
		Run: w.Run, Layer: w.Layer, Seed: w.Seed, Sequence: w.Sequence,
		At: w.At, Step: w.Step, From: from, To: to,
		Reason: w.Reason, Evidence: w.Evidence,
	}
	return nil
}

func stateOf(field string, ordinal int32) (oona.State, error) {
	if ordinal < 0 || ordinal >= int32(oona.StateCount) {
		return 0, &DecodeError{field, -1, fmt.Errorf("%w: ordinal %d; states are 0 to %d", ErrMalformed, ordinal, oona.StateCount-1)}
	}
	return oona.State(ordinal), nil
}
