package avro

import "github.com/morphogenetic/oona"

// runEndV1 is the fingerprint of run_end.v1.avsc, which AppendRunEnd writes.
const runEndV1 = 0x9562507b626416be

// AppendRunEnd appends e in single-object encoding.
func AppendRunEnd(dst []byte, e *oona.RunEnd) []byte {
	dst = appendFraming(dst, runEndV1)
	dst = appendText(dst, e.Run)
	dst = appendLong(dst, e.At)
	dst = appendLong(dst, e.Step)
	dst = appendLong(dst, int64(e.Outcome))
	dst = appendText(dst, e.Reason)
	dst = appendText(dst, e.Timeline)
	dst = appendText(dst, e.Producer)
	return appendLong(dst, e.ProducerEpoch)
}

// DecodeRunEnd decodes the end of a run at the start of data, of any published version, and
// returns the rest of data. It leaves e unchanged if it returns an error. Like DecodeEvent, it is
// written by hand so that its errors say where a record is cut or damaged.
func DecodeRunEnd(data []byte, e *oona.RunEnd) (rest []byte, err error) {
	v, err := published.find(data, runEnd)
	if err != nil {
		return nil, err
	}
	n, err := v.decodeRunEnd(data, framingSize, e)
	if err != nil {
		return nil, err
	}
	return data[n:], nil
}

// decodeRunEnd decodes the record whose first field is at data[at], and returns where it ends.
func (*version) decodeRunEnd(data []byte, at int, e *oona.RunEnd) (end int, err error) {
	c := cursor{data: data, at: at}
	out := oona.RunEnd{
		Run: oona.RunID(c.bytes("run_id")), At: oona.Micros(c.long("at")), Step: c.long("step"),
		Outcome: oona.RunOutcome(c.ordinal("outcome", "outcomes", oona.RunOutcomeCount)), Reason: string(c.bytes("reason")),
		Timeline: oona.TimelineID(c.bytes("timeline")), Producer: oona.ProducerID(c.bytes("producer_id")), ProducerEpoch: c.long("producer_epoch"),
	}
	if c.err != nil {
		return 0, c.err
	}
	*e = out
	return c.at, nil
}
