package avro

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// MaxEventBytes is the maximum size of an encoded event from a client. No valid event is as
// large. The limit bounds the memory for an event.
const MaxEventBytes = 64 << 10

// DecodeEvents decodes events of seeds and ends of runs in single-object encoding that follow one
// another. It calls each with every event of a seed, and ended with every end of a run. It stops at
// the first error of these, and returns it unchanged. In other errors, offsets count from the start
// of the record.
func DecodeEvents(body []byte, each func(*oona.SeedEvent) error, ended func(*oona.RunEnd) error) error {
	for rest := body; len(rest) > 0; {
		v, err := published.find(rest, seedEvent, runEnd)
		if err != nil {
			return err
		}
		var n int
		if v.Name == runEnd {
			n, err = oneEvent(rest, framingSize, v.decodeRunEnd, ended)
		} else {
			n, err = oneEvent(rest, framingSize, v.decodeEvent, each)
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// DecodeEventContainer is like DecodeEvents, for an object container file that was written
// with a published version of SeedEvent. limit and reserve are as for
// FrameDecoder.DecodeContainer.
func DecodeEventContainer(file []byte, limit int, reserve func(bytes int) error, each func(*oona.SeedEvent) error) error {
	blocks := blocks{cursor: cursor{data: file}, inflater: new(FrameDecoder), of: "events", limit: limit, reserve: reserve}
	header, err := readContainerHeader(&blocks.cursor, seedEvent)
	if err != nil {
		return err
	}
	v := published.byFingerprint[header.fingerprint]
	return blocks.each(header, 0, func(b *inflation, count uint64) error {
		if err := v.events(b.bytes, count, each); err != nil {
			return err
		}
		return reserve(-cap(b.bytes))
	})
}

// events decodes the events of a block.
func (v *version) events(block []byte, count uint64, each func(*oona.SeedEvent) error) error {
	for range count {
		n, err := oneEvent(block, 0, v.decodeEvent, each)
		if err != nil {
			return err
		}
		block = block[n:]
	}
	if len(block) > 0 {
		return &DecodeError{"block", -1, fmt.Errorf("%w: %d bytes follow the last of its %d events", ErrMalformed, len(block), count)}
	}
	return nil
}

// oneEvent decodes the event at the start of data, whose first field is at data[at], and returns
// its size.
func oneEvent[E any](data []byte, at int, decode func(data []byte, at int, to *E) (end int, err error), each func(*E) error) (size int, err error) {
	data = data[:min(len(data), at+MaxEventBytes)]
	var e E
	if size, err = decode(data, at, &e); err != nil {
		if len(data) == at+MaxEventBytes {
			err = fmt.Errorf("%w; it may have more than %d bytes, which is the maximum", err, MaxEventBytes)
		}
		return 0, err
	}
	return size, each(&e)
}
