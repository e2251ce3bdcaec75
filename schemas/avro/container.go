package avro

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
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
// encoding, which is the caller's. The bytes of the value are those in the file,
// so that a frame is the same however it was sent. An error of each ends the
// reading and is returned as it is; any other is a *DecodeError.
//
// All blocks together may have limit bytes decompressed. No more than that is
// allocated for a block, whatever it announces. At most mostEmpty blocks may have
// no frames: the others' number is for each to bound.
//
// twmb/avro reads such files too (see RecordingReader), but returns values
// only, into types that may take twenty times the bytes.
func (d *FrameDecoder) DecodeContainer(file []byte, limit int, f *oona.Frame, each func(single []byte) error) error {
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
		// Before each value there is room for its framing: of the first it is
		// added, that of the others is taken from the value before.
		data, err := d.inflate(header.codec, stored, limit, make([]byte, framingSize))
		if err != nil {
			return &DecodeError{"block", c.at - len(stored) - len(header.sync), err}
		}
		limit -= len(data) - framingSize
		if err := d.decodeBlock(header.fingerprint, data, count, f, each); err != nil {
			return err
		}
	}
	return nil
}

// mostEmpty bounds the blocks without frames, of which a few bytes cost as much
// as a frame. Writers leave one where they flush and have nothing.
const mostEmpty = 1 << 10

// decodeBlock reads count values, which begin behind the room for a framing.
func (d *FrameDecoder) decodeBlock(fingerprint uint64, data []byte, count int64, f *oona.Frame, each func(single []byte) error) error {
	for range count {
		appendFraming(data[:0], fingerprint)
		rest, err := d.Decode(data, f)
		if err != nil {
			return err
		}
		if err := each(bytes.Clone(data[:len(data)-len(rest)])); err != nil {
			return err
		}
		data = data[len(data)-len(rest)-framingSize:]
	}
	if n := len(data) - framingSize; n > 0 {
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

// inflate appends a block, decompressed, to dst, at most limit bytes.
func (d *FrameDecoder) inflate(codec string, block []byte, limit int, dst []byte) ([]byte, error) {
	tooMuch := fmt.Errorf("%w: there are more than %d bytes left for it", ErrInflated, limit)
	switch codec {
	case "null":
		if len(block) > limit {
			return nil, tooMuch
		}
		return append(dst, block...), nil
	case "deflate":
		// What follows the stream is not looked at: fastavro leaves the end of
		// a zlib stream there.
		out := bytes.NewBuffer(dst)
		n, err := out.ReadFrom(io.LimitReader(d.deflated(block), int64(limit)+1))
		if err == nil && n > int64(limit) {
			return nil, tooMuch
		}
		return out.Bytes(), malformed(err)
	case "snappy":
		return unsnap(block, limit, dst)
	case "zstandard":
		out, err := unzstd(block, limit, dst)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			return nil, tooMuch
		}
		if errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return nil, fmt.Errorf("%w: its zstandard window is larger than the %d bytes that are left for the block; write it with a smaller one", ErrMalformed, limit)
		}
		return out, malformed(err)
	}
	return nil, fmt.Errorf("%w: codec %.64q is none of null, deflate, snappy and zstandard", ErrMalformed, codec)
}

// deflated reads a block with the tables and the window of the one before.
func (d *FrameDecoder) deflated(block []byte) io.Reader {
	if reader, ok := d.flate.(flate.Resetter); ok && reader.Reset(bytes.NewReader(block), nil) == nil {
		return d.flate
	}
	d.flate = flate.NewReader(bytes.NewReader(block))
	return d.flate
}

func malformed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// unsnap reads snappy's block format with the CRC-32 that Avro puts behind it.
func unsnap(block []byte, limit int, dst []byte) ([]byte, error) {
	if len(block) < crc32.Size {
		return nil, fmt.Errorf("%w: no room for its checksum", ErrMalformed)
	}
	block, sum := block[:len(block)-crc32.Size], block[len(block)-crc32.Size:]
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, malformed(err)
	}
	if n > limit {
		return nil, fmt.Errorf("%w: it announces %d bytes, there are %d left for it", ErrInflated, n, limit)
	}
	out, err := snappy.Decode(nil, block)
	if err == nil && crc32.ChecksumIEEE(out) != binary.BigEndian.Uint32(sum) {
		err = errors.New("its checksum is another")
	}
	return append(dst, out...), malformed(err)
}

func unzstd(block []byte, limit int, dst []byte) ([]byte, error) {
	// The limit holds for dst as a whole, and for the window.
	most := max(uint64(limit)+uint64(len(dst)), zstd.MinWindowSize)
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(most))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := r.DecodeAll(block, dst)
	if err == nil && len(out)-len(dst) > limit {
		err = zstd.ErrDecoderSizeExceeded
	}
	return out, err
}
