package avro

import "github.com/morphogenetic/oona"

// incarnationStartV1 is the fingerprint of incarnation_start.v1.avsc, which
// AppendIncarnation writes.
const incarnationStartV1 = 0x11c0c25b4592102d

// AppendIncarnation appends s in single-object encoding.
func AppendIncarnation(dst []byte, s oona.IncarnationStart) []byte {
	dst = appendFraming(dst, incarnationStartV1)
	dst = appendLong(dst, s.Number)
	dst = appendLong(dst, s.PreviousEnd)
	dst = appendText(dst, s.Reason)
	dst = appendText(dst, s.Worker)
	return appendLong(dst, s.WrittenAt)
}

// DecodeIncarnation decodes the start of an incarnation, of any published version.
// Nothing may follow it. The error wraps ErrUnpublished if a later version of Oona may
// have written the record.
func DecodeIncarnation(data []byte) (oona.IncarnationStart, error) {
	var w struct {
		Number      oona.Incarnation `avro:"number"`
		PreviousEnd int64            `avro:"previous_end"`
		Reason      string           `avro:"reason"`
		Worker      string           `avro:"worker"`
		WrittenAt   oona.Micros      `avro:"written_at"`
	}
	err := decodeWhole(data, incarnationStart, &w)
	return oona.IncarnationStart(w), err
}
