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
	return appendLong(dst, int64(t.WrittenAt))
}

// DecodeTick decodes a tick of any published version. Nothing may follow it.
func DecodeTick(data []byte) (oona.Tick, error) {
	v, err := published.find(data, tick)
	if err != nil {
		return oona.Tick{}, err
	}
	var w struct {
		Worker    string      `avro:"worker"`
		WrittenAt oona.Micros `avro:"written_at"`
	}
	rest, err := v.decode(data, &w)
	if err != nil {
		return oona.Tick{}, err
	}
	if len(rest) > 0 {
		return oona.Tick{}, &DecodeError{v.Name, len(data) - len(rest), fmt.Errorf("%w: %d bytes follow it", ErrMalformed, len(rest))}
	}
	return oona.Tick{Worker: w.Worker, WrittenAt: w.WrittenAt}, nil
}
