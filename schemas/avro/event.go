package avro

import (
	"fmt"
	"maps"
	"slices"

	"github.com/morphogenetic/oona"
)

// Fingerprints of seed_event.vN.avsc. AppendEvent writes the latest.
const (
	seedEventV1 = 0xe6dbe9d302550dfc
	seedEventV2 = 0xc4cbe908080c2030
)

// AppendEvent appends e in single-object encoding. The evidence is sorted by name, so
// equal events give equal bytes.
func AppendEvent(dst []byte, e *oona.SeedEvent) []byte {
	dst = appendFraming(dst, seedEventV2)
	dst = appendText(dst, e.Run)
	dst = appendText(dst, e.Layer)
	for _, v := range [...]int64{
		int64(e.Seed), e.Sequence, int64(e.At), e.Step, int64(e.From), int64(e.To),
	} {
		dst = appendLong(dst, v)
	}
	dst = appendText(dst, e.Reason)
	dst = appendArray(dst, slices.Sorted(maps.Keys(e.Evidence)), func(dst []byte, name string) []byte {
		return appendDouble(appendText(dst, name), e.Evidence[name])
	})
	dst = appendText(dst, e.Command)
	dst = appendText(dst, e.Actor)
	dst = appendText(dst, e.Node)
	dst = appendLong(dst, e.Session)
	dst = appendLong(dst, e.Epoch)
	dst = appendLong(dst, e.JournalIndex)
	dst = appendText(dst, e.Blueprint)
	for _, v := range [...]int64{int64(e.Mark), e.TriggerPosition, int64(e.TriggerIndex), int64(e.Incarnation)} {
		dst = appendLong(dst, v)
	}
	dst = appendText(dst, e.Timeline)
	dst = appendText(dst, e.Producer)
	return appendLong(dst, e.ProducerEpoch)
}

// DecodeEvent decodes the event at the start of data, of any published version, and
// returns the rest of data. It leaves e unchanged if it returns an error. The event
// shares no memory with data. If the evidence has a name twice, the last value counts.
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
	Run            oona.RunID      `avro:"run_id"`
	Layer          oona.LayerID    `avro:"layer_id"`
	Timeline       oona.TimelineID `avro:"timeline"`
	Producer       oona.ProducerID `avro:"producer_id"`
	ProducerEpoch  int64           `avro:"producer_epoch"`
	Sequence       int64           `avro:"sequence"`
	Step           int64           `avro:"step"`
	wireTransition `avro:",inline"`
}

// wireTransition has the fields that a frame does not have, so that a wireEntry can have
// the fields of both.
type wireTransition struct {
	Seed     oona.SeedID        `avro:"seed_id"`
	At       oona.Micros        `avro:"at"`
	From     int32              `avro:"from_state"`
	To       int32              `avro:"to_state"`
	Reason   string             `avro:"reason"`
	Evidence map[string]float64 `avro:"evidence"`

	Command         string           `avro:"command_id"`
	Actor           string           `avro:"actor"`
	Node            string           `avro:"node"`
	Session         int64            `avro:"session"`
	Epoch           int64            `avro:"epoch"`
	JournalIndex    int64            `avro:"journal_index"`
	Blueprint       string           `avro:"blueprint_id"`
	Mark            oona.EventMark   `avro:"mark"`
	TriggerPosition int64            `avro:"trigger_position"`
	TriggerIndex    int32            `avro:"trigger_index"`
	Incarnation     oona.Incarnation `avro:"incarnation"`
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
		Command: w.Command, Actor: w.Actor, Node: w.Node, Session: w.Session, Epoch: w.Epoch, JournalIndex: w.JournalIndex,
		Blueprint: w.Blueprint, Mark: w.Mark,
		TriggerPosition: w.TriggerPosition, TriggerIndex: w.TriggerIndex, Incarnation: w.Incarnation,
		Timeline: w.Timeline, Producer: w.Producer, ProducerEpoch: w.ProducerEpoch,
	}
	return nil
}

func stateOf(field string, ordinal int32) (oona.State, error) {
	if ordinal < 0 || ordinal >= int32(oona.StateCount) {
		return 0, &DecodeError{field, -1, fmt.Errorf("%w: ordinal %d; states are 0 to %d", ErrMalformed, ordinal, oona.StateCount-1)}
	}
	return oona.State(ordinal), nil
}

// EventSeed returns the run, the layer and the seed of the event at the start of data. These
// are the first fields in all published versions. It is faster than DecodeEvent, because it
// does not decode the other fields.
func EventSeed(data []byte) (run oona.RunID, layer oona.LayerID, seed oona.SeedID, err error) {
	if _, err = published.find(data, seedEvent); err != nil {
		return "", "", 0, err
	}
	c := cursor{data: data, at: framingSize}
	run, layer, seed = oona.RunID(c.bytes("run_id")), oona.LayerID(c.bytes("layer_id")), oona.SeedID(c.int("seed_id"))
	if c.err != nil {
		return "", "", 0, c.err
	}
	return run, layer, seed, nil
}
