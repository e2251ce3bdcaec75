package avro

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// MaxEventBytes is the maximum size of an encoded event from a client. No valid event is as
// large. The limit bounds the memory for an event.
const MaxEventBytes = 64 << 10

// DecodeEvents decodes events in single-object encoding that follow one another, and calls
// each with every one. It stops at the first error of each, and returns it unchanged. In other
// errors, offsets count from the start of the event.
func DecodeEvents(body []byte, each func(*oona.SeedEvent) error) error {
	for rest := body; len(rest) > 0; {
		v, err := published.find(rest, seedEvent)
		if err != nil {
			return err
		}
		n, err := v.oneEvent(rest, framingSize, each)
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
		n, err := v.oneEvent(block, 0, each)
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
func (v *version) oneEvent(data []byte, at int, each func(*oona.SeedEvent) error) (size int, err error) {
	data = data[:min(len(data), at+MaxEventBytes)]
	var e oona.SeedEvent
	if size, err = v.decodeEvent(data, at, &e); err != nil {
		if len(data) == at+MaxEventBytes {
			err = fmt.Errorf("%w; it may have more than %d bytes, which is the maximum", err, MaxEventBytes)
		}
		return 0, err
	}
	return size, each(&e)
}
