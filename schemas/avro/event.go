package avro

import (
	"maps"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// Fingerprints of seed_event.vN.avsc. AppendEvent writes the latest.
const (
	seedEventV1 = 0xe6dbe9d302550dfc
	seedEventV2 = 0xc4cbe908080c2030
)

// AppendEvent appends e in single-object encoding. The evidence is sorted by name, so
// equal events give equal bytes. A NaN has the bits that NumPy and Java write, whatever bits it had.
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
		return appendMeasured(appendText(dst, name), e.Evidence[name])
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

// appendMeasured is like appendDouble. There are many NaNs, which differ by where they were
// computed, and readers would take two of them for different measurements.
func appendMeasured(dst []byte, v float64) []byte {
	if v != v {
		v = math.Float64frombits(0x7ff8 << 48)
	}
	return appendDouble(dst, v)
}

// DecodeEvent decodes the event at the start of data, of any published version, and
// returns the rest of data. It leaves e unchanged if it returns an error. The event
// shares no memory with data. Evidence that has a name twice is malformed, because one of the
// values would be lost.
//
// It is written by hand so that its errors say where an event is cut or damaged.
func DecodeEvent(data []byte, e *oona.SeedEvent) (rest []byte, err error) {
	v, err := published.find(data, seedEvent)
	if err != nil {
		return nil, err
	}
	n, err := v.decodeEvent(data, framingSize, e)
	if err != nil {
		return nil, err
	}
	return data[n:], nil
}

// decodeEvent decodes the event of version v whose first field is at data[at], and returns where
// it ends.
func (v *version) decodeEvent(data []byte, at int, e *oona.SeedEvent) (end int, err error) {
	c := cursor{data: data, at: at}
	out := oona.SeedEvent{
		Run: oona.RunID(c.bytes("run_id")), Layer: oona.LayerID(c.bytes("layer_id")), Seed: oona.SeedID(c.int("seed_id")),
		Sequence: c.long("sequence"), At: oona.Micros(c.long("at")), Step: c.long("step"),
		From: c.state("from_state"), To: c.state("to_state"), Reason: string(c.bytes("reason")),
		Evidence: c.evidence(),
	}
	if v.Version >= 2 {
		out.Command, out.Actor, out.Node = string(c.bytes("command_id")), string(c.bytes("actor")), string(c.bytes("node"))
		out.Session, out.Epoch, out.JournalIndex = c.long("session"), c.long("epoch"), c.long("journal_index")
		out.Blueprint, out.Mark = string(c.bytes("blueprint_id")), oona.EventMark(c.ordinal("mark", "marks", oona.EventMarkCount))
		out.TriggerPosition, out.TriggerIndex, out.Incarnation = c.long("trigger_position"), c.int("trigger_index"), oona.Incarnation(c.long("incarnation"))
		out.Timeline, out.Producer, out.ProducerEpoch = oona.TimelineID(c.bytes("timeline")), oona.ProducerID(c.bytes("producer_id")), c.long("producer_epoch")
	}
	if c.err != nil {
		return 0, c.err
	}
	*e = out
	return c.at, nil
}

// ordinal reads the place of a value among those that a field can have.
func (c *cursor) ordinal(field, of string, count int) int32 {
	at := c.at
	n := c.int(field)
	if c.err == nil && (n < 0 || int(n) >= count) {
		c.at = at // where the number begins
		c.fail(field, ErrMalformed, "ordinal %d; %s are 0 to %d", n, of, count-1)
		return 0
	}
	return n
}

func (c *cursor) state(field string) oona.State {
	return oona.State(c.ordinal(field, "states", oona.StateCount))
}

// evidence reads a map of doubles.
func (c *cursor) evidence() map[string]float64 {
	const field, least = "evidence", 9 // bytes of an empty name and a double
	all := make(map[string]float64)
	for {
		b := c.block(field, least)
		if b.count == 0 {
			return all
		}
		for range b.count {
			at := c.at
			name := string(c.bytes(field))
			if _, twice := all[name]; twice && c.err == nil {
				c.at = at
				c.fail(field, ErrMalformed, "the name %.64q is given twice", name)
			}
			value := c.double(field)
			if c.err != nil {
				return all
			}
			all[name] = value
		}
		c.endBlock(field, b)
	}
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
