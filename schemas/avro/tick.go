package avro

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// tickV1 is the fingerprint of tick.v1.avsc, which AppendTick writes.
const tickV1 = 0x4a8c660cb6d99642

// AppendTick appends t in single-object encoding.
func AppendTick(dst []byte, t oona.Tick) []byte {
	dst = appendFraming(dst, tickV1)
	dst = appendText(dst, t.Worker)
	return appendLong(dst, t.WrittenAt)
}

// DecodeTick decodes a tick of any published version. Nothing may follow it.
func DecodeTick(data []byte) (oona.Tick, error) {
	var w struct {
		Worker    string      `avro:"worker"`
		WrittenAt oona.Micros `avro:"written_at"`
	}
	err := decodeWhole(data, tick, &w)
	return oona.Tick(w), err
}

// decodeWhole decodes a record of any published version into w, which has the fields of
// the latest one. Nothing may follow the record. After an error, w is zero.
func decodeWhole[W any](data []byte, name string, w *W) error {
	v, err := published.find(data, name)
	if err != nil {
		return err
	}
	rest, err := v.decode(data, w)
	if n := len(rest); err == nil && n > 0 {
		err = &DecodeError{v.Name, len(data) - n, fmt.Errorf("%w: %d bytes follow it", ErrMalformed, n)}
	}
	if err != nil {
		*w = *new(W)
	}
	return err
}
