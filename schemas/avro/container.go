package avro

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

// ContainerMagic is what an Avro object container file begins with.
const ContainerMagic = "Obj\x01"

// ErrInflated is wrapped where blocks decompress to more than they may.
var ErrInflated = errors.New("the blocks decompress to too much")

// DecodeContainer reads the frames of an object container file (Avro 1.12,
// "Object Container Files") that was written with a published version of
// SeedMetrics and one of the codecs null, deflate, snappy and zstandard. Each
// is decoded into f, as by Decode, and each is called with its single-object
// encoding, which is the caller's; those of a block share its memory. The bytes of
// the value are those in the file, so that a frame is the same however it was
// sent. An error of each or of reserve ends the reading and is returned as it is;
// any other is a *DecodeError.
//
// All blocks together may have limit bytes decompressed. No more than that is
// allocated for a block, whatever it announces, but for the framing of its frames.
// At most mostEmpty blocks may have no frames: the others' number is for each to
// bound.
//
// reserve, unless it is nil, is asked before memory for blocks is allocated, and
// told with a negative number of what is free again.
//
// twmb/avro reads such files too (see RecordingReader), but returns values
// only, into types that may take twenty times the bytes.
func (d *FrameDecoder) DecodeContainer(file []byte, limit int, reserve func(bytes int) error, f *oona.Frame, each func(single []byte) error) error {
	if reserve == nil {
		reserve = func(int) error { return nil }
	}
	c := cursor{data: file}
	header, err := readContainerHeader(&c)
	if err != nil {
		return err
	}
	empty := 0
	for c.at < len(c.data) {
		at := c.at
		count, stored := header.readBlock(&c)
		if c.err != nil {
			return c.err
		}
		if count == 0 {
			if empty++; empty > mostEmpty {
				return &DecodeError{"block", at, fmt.Errorf("%w: it is the %dth without frames; write blocks that have some", ErrMalformed, empty)}
			}
		}
		b := inflation{limit: limit, reserve: reserve, room: framingSize * int(min(count, framedInPlace+1))}
		if err := b.inflate(d, header.codec, stored); err != nil {
			if b.denied != nil {
				return b.denied
			}
			return &DecodeError{"block", c.at - len(stored) - len(header.sync), err}
		}
		limit -= len(b.bytes) - b.room
		if err := d.decodeBlock(header.fingerprint, &b, count, f, each); err != nil {
			return err
		}
	}
	return nil
}

// framedInPlace bounds how many framings a block has room for, as anybody can
// announce any number of frames. Those beyond are copied, each by itself.
const framedInPlace = 1 << 10

// mostEmpty bounds the blocks without frames, of which a few bytes cost as much
// as a frame. Writers leave one where they flush and have nothing.
const mostEmpty = 1 << 10

// decodeBlock reads count values. Each needs a framing before it, and in front of
// the block there is room for those: so a value is moved to the left, by as much
// as the framings of those behind it take.
func (d *FrameDecoder) decodeBlock(fingerprint uint64, b *inflation, count int64, f *oona.Frame, each func(single []byte) error) error {
	at, moved := b.room, 0 // where the next value begins, and those before it end
	for i := range count {
		rest := b.bytes[at-framingSize:]
		appendFraming(rest[:0], fingerprint)
		after, err := d.Decode(rest, f)
		if err != nil {
			return err
		}
		single := rest[:len(rest)-len(after)]
		at = len(b.bytes) - len(after)
		switch {
		case i >= framedInPlace:
			single, err = b.clone(single)
		case moved < at-len(single):
			single = append(b.bytes[:moved], single...)[moved:]
			if len(f.Tensors) > 0 { // their data has moved, too
				_, err = d.Decode(single, f)
			}
		}
		if err != nil {
			return err
		}
		moved += len(single)
		if err := each(slices.Clip(single)); err != nil {
			return err
		}
	}
	if n := len(b.bytes) - at; n > 0 {
		return &DecodeError{"block", -1, fmt.Errorf("%w: %d bytes follow the last of its %d frames", ErrMalformed, n, count)}
	}
	return nil
}

type containerHeader struct {
	fingerprint uint64 // of the schema
	codec       string
	sync        []byte // between blocks
}

const syncSize = 16

func readContainerHeader(c *cursor) (containerHeader, error) {
	if magic := c.take("magic", int64(len(ContainerMagic))); c.err == nil && string(magic) != ContainerMagic {
		c.fail("magic", ErrMalformed, "an object container file begins with % x, not % x", ContainerMagic, magic)
	}
	h := containerHeader{codec: "null"}
	var schema []byte
	for {
		const least = 2 // bytes: an empty key, an empty value
		b := c.block("metadata", least)
		if b.count == 0 {
			break
		}
		for range b.count {
			switch key, value := c.bytes("metadata"), c.bytes("metadata"); string(key) {
			case "avro.schema":
				schema = value
			case "avro.codec":
				h.codec = string(value)
			}
		}
		c.endBlock("metadata", b)
	}
	h.sync = c.take("sync", syncSize)
	if c.err != nil {
		return h, c.err
	}
	var err error
	h.fingerprint, err = frameSchema(schema)
	return h, err
}

// frameSchema returns the fingerprint of a schema, if it is a published one of
// frames.
func frameSchema(text []byte) (uint64, error) {
	const longest = 64 << 10 // bytes; ours have a tenth of it
	if len(text) > longest {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: it has %d bytes, more than any published schema", ErrFingerprint, len(text))}
	}
	parsed, err := avro.Parse(string(text))
	if err != nil {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: %w", ErrMalformed, err)}
	}
	fp := fingerprint(parsed)
	if v, ok := published.byFingerprint[fp]; !ok || v.Name != seedMetrics {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: the file holds %.100s, and that schema is not a published one of %s", ErrFingerprint, fullName(parsed.Root()), seedMetrics)}
	}
	return fp, nil
}

// readBlock reads a block and the sync marker behind it.
func (h *containerHeader) readBlock(c *cursor) (count int64, stored []byte) {
	count = c.long("block")
	if c.err == nil && count < 0 {
		c.fail("block", ErrMalformed, "a count of %d", count)
	}
	stored = c.bytes("block")
	if sync := c.take("block", syncSize); c.err == nil && !bytes.Equal(sync, h.sync) {
		c.fail("block", ErrMalformed, "the file's sync marker does not follow it")
	}
	return count, stored
}
