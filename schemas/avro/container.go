package avro

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

// ContainerMagic is the beginning of an Avro object container file.
const ContainerMagic = "Obj\x01"

// ErrInflated is returned if the blocks of a container decompress to more bytes than the
// limit allows.
var ErrInflated = errors.New("the blocks are too large when decompressed")

// DecodeContainer reads the frames of an object container file (Avro 1.12,
// "Object Container Files") that was written with a published version of
// SeedMetrics and one of the codecs null, deflate, snappy and zstandard. It decodes
// each frame into f, as Decode does, and calls each with the frame's single-object
// encoding. The caller may keep this slice; the slices of a block share memory. The
// bytes of the value are the bytes in the file, so a frame is the same however it was
// sent. DecodeContainer stops at the first error of each or of reserve, and returns it
// unchanged. All other errors are *DecodeErrors.
//
// All blocks together may decompress to at most limit bytes. Whatever size a block
// announces, no more memory is allocated for it, except for the framing of its frames.
// At most mostEmpty blocks may have no frames. The function each can limit the number
// of frames.
//
// DecodeContainer calls reserve, unless it is nil, before it allocates memory for
// blocks. It calls reserve with a negative number when memory is free again.
//
// twmb/avro can read such files, too (see RecordingReader). But it returns values only,
// and they may take twenty times as many bytes.
func (d *FrameDecoder) DecodeContainer(file []byte, limit int, reserve func(bytes int) error, f *oona.Frame, each func(single []byte) error) error {
	if reserve == nil {
		reserve = func(int) error { return nil }
	}
	blocks := blocks{cursor: cursor{data: file}, inflater: d, of: "frames", limit: limit, reserve: reserve}
	header, err := readContainerHeader(&blocks.cursor, seedMetrics)
	if err != nil {
		return err
	}
	return blocks.each(header, framedInPlace+1, func(b *inflation, count uint64) error {
		return d.decodeBlock(header.fingerprint, b, count, f, each)
	})
}

// blocks reads the blocks of a container, which follow its header.
type blocks struct {
	cursor
	inflater *FrameDecoder
	of       string // what the blocks contain: frames or events
	limit    int    // maximum size of all blocks together, decompressed
	reserve  func(bytes int) error
}

// each decompresses one block after the other, and calls decode with the block and the number
// of its values. In front of each block, it leaves room for the framings of the first framed
// values.
func (s *blocks) each(header containerHeader, framed uint64, decode func(b *inflation, count uint64) error) error {
	empty := 0
	for s.at < len(s.data) {
		at := s.at
		count, stored := header.readBlock(&s.cursor)
		if s.err != nil {
			return s.err
		}
		if count == 0 {
			if empty++; empty > mostEmpty {
				return &DecodeError{"block", at, fmt.Errorf("%w: %d blocks have no %s; write blocks with %s", ErrMalformed, empty, s.of, s.of)}
			}
		}
		b := inflation{limit: s.limit, reserve: s.reserve, room: framingSize * int(min(count, framed))}
		if err := b.inflate(s.inflater, header.codec, stored); err != nil {
			if b.denied != nil {
				return b.denied
			}
			return &DecodeError{"block", s.at - len(stored) - len(header.sync), err}
		}
		s.limit -= len(b.bytes) - b.room
		if err := decode(&b, count); err != nil {
			return err
		}
	}
	return nil
}

// framedInPlace limits how many framings a block has room for, because a block may
// announce any number of frames. The frames after that are copied one by one.
const framedInPlace = 1 << 10

// mostEmpty is the maximum number of blocks without frames. Such a block is a few bytes long
// and costs as much time as a frame. Writers write one if they flush without a frame.
const mostEmpty = 1 << 10

// decodeBlock reads count values. Each needs a framing in front of it. In front of the
// block there is room for these framings. So each value is moved to the left, by the
// size of the framings of the values after it.
func (d *FrameDecoder) decodeBlock(fingerprint uint64, b *inflation, count uint64, f *oona.Frame, each func(single []byte) error) error {
	at, moved := b.room, 0 // where the next value begins, and where the moved values end
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
			if len(f.Tensors) > 0 { // the data of the tensors has moved, too
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
	fingerprint uint64 // fingerprint of the schema
	codec       string
	sync        []byte // the marker between blocks
}

const syncSize = 16

// readContainerHeader reads the header of a file that was written with a published version
// of the schema with the name.
func readContainerHeader(c *cursor, name string) (containerHeader, error) {
	if magic := c.take("magic", int64(len(ContainerMagic))); c.err == nil && string(magic) != ContainerMagic {
		c.fail("magic", ErrMalformed, "an object container file begins with % x, not % x", ContainerMagic, magic)
	}
	h := containerHeader{codec: "null"}
	var schema []byte
	for {
		const least = 2 // bytes of an empty key and an empty value
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
	h.fingerprint, err = publishedSchema(schema, name)
	return h, err
}

// publishedSchema returns the fingerprint of a schema. It returns an error unless the schema
// is a published version of the one with the name.
func publishedSchema(text []byte, name string) (uint64, error) {
	const longest = 64 << 10 // bytes; published schemas have at most a tenth of this
	if len(text) > longest {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: it has %d bytes, more than any published schema", ErrFingerprint, len(text))}
	}
	parsed, err := avro.Parse(string(text))
	if err != nil {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: %w", ErrMalformed, err)}
	}
	fp := fingerprint(parsed)
	if v, ok := published.byFingerprint[fp]; !ok || v.Name != name {
		return 0, &DecodeError{"avro.schema", -1, fmt.Errorf("%w: the file holds %.100s, and that schema is not a published one of %s", ErrFingerprint, fullName(parsed.Root()), name)}
	}
	return fp, nil
}

// readBlock reads a block and the sync marker after it.
func (h *containerHeader) readBlock(c *cursor) (count uint64, stored []byte) {
	count, stored = c.count("block"), c.bytes("block")
	if sync := c.take("block", syncSize); c.err == nil && !bytes.Equal(sync, h.sync) {
		c.fail("block", ErrMalformed, "the file's sync marker does not follow the block")
	}
	return count, stored
}
