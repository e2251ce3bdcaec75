// Package entry encodes the records of ingest's spool. A record has the messages of one request
// for one topic.
//
//	version u8 · spooled at (varint, microseconds since 1970) · topic · count · messages
//	message  key · headers: count, then names and values, by name · payload
//	         in version 2, after the key: the hash that selects the partition
//
// In version 1, the key of a message selects the partition.
//
// Counts and lengths are unsigned varints. The length of a text or a byte string comes before it.
package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Entry has the messages of a request for a topic.
type Entry struct {
	Spooled  oona.Micros // when it was written to the spool, by ingest's clock
	Topic    string
	Messages []*message.Message
}

const (
	keyed  = 1 // the version without hashes
	hashed = 2
)

// Append appends the encoding of an entry. Either all of its messages must have a hashed target, or
// none of them.
func Append(dst []byte, e *Entry) []byte {
	version := byte(keyed)
	if len(e.Messages) > 0 && bus.TargetOf(e.Messages[0]).Hashed {
		version = hashed
	}
	dst = append(dst, version)
	dst = binary.AppendVarint(dst, int64(e.Spooled))
	dst = appendText(dst, e.Topic)
	dst = binary.AppendUvarint(dst, uint64(len(e.Messages)))
	for _, m := range e.Messages {
		to := bus.TargetOf(m)
		dst = appendText(dst, to.Key)
		if version == hashed {
			dst = binary.AppendUvarint(dst, uint64(to.Partition))
		}
		dst = binary.AppendUvarint(dst, uint64(len(m.Metadata)))
		for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
			dst = appendText(appendText(dst, name), m.Metadata[name])
		}
		dst = appendText(dst, m.Payload)
	}
	return dst
}

func appendText[T ~string | ~[]byte](dst []byte, text T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

// ErrForm is wrapped by the error of Decode for a record that is not a valid entry.
var ErrForm = errors.New("the record is not a request that ingest has spooled")

// Decode decodes an entry. Its payloads and keys are parts of body.
func Decode(body []byte) (*Entry, error) {
	d := decoder{rest: body}
	if len(body) == 0 || body[0] != keyed && body[0] != hashed {
		return nil, fmt.Errorf("%w: its first byte is not a version that this program knows (%d or %d), so it is damaged, or a newer version of ingest has written it", ErrForm, keyed, hashed)
	}
	d.rest = body[1:]
	e := &Entry{Spooled: oona.Micros(d.number()), Topic: string(d.bytes())}
	for range d.count() {
		to := bus.Target{Key: d.bytes(), Hashed: body[0] == hashed}
		if to.Hashed {
			to.Partition = d.hash()
		}
		headers := make(message.Metadata)
		for range d.count() {
			name := string(d.bytes())
			headers[name] = string(d.bytes())
		}
		if len(to.Key) == 0 {
			to.Key = nil
		}
		m := bus.NewMessage(d.bytes(), to)
		m.Metadata = headers
		e.Messages = append(e.Messages, m)
	}
	if d.bad || len(d.rest) > 0 {
		return nil, fmt.Errorf("%w: it is incomplete, or other bytes follow it", ErrForm)
	}
	return e, nil
}

// decoder reads from the front of rest. After an error, it returns only zero values.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() {
	d.rest, d.bad = nil, true
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) hash() int32 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > math.MaxInt32 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return int32(n)
}

// count returns the number of parts that follow, each of at least one byte.
func (d *decoder) count() int {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > uint64(len(d.rest)-size) {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	out := d.rest[:n:n]
	d.rest = d.rest[n:]
	return out
}

// Runs returns the ids of the runs of messages, without repeats. They are the keys of the record in the
// spool, because a run has one watermark, so its messages must stay in order.
func Runs(messages []*message.Message) (runs []string) {
	var seen map[string]bool // many runs in one request must not take time that grows with their square
	for _, m := range messages {
		run, err := oona.KeyRun(bus.TargetOf(m).Key)
		if err != nil || len(runs) > 0 && runs[len(runs)-1] == string(run) || seen[string(run)] {
			continue
		}
		if runs = append(runs, string(run)); len(runs) > 1 {
			if seen == nil {
				seen = map[string]bool{runs[0]: true}
			}
			seen[string(run)] = true
		}
	}
	return runs
}
