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
)

// inflation is a decompressed block of a container, with room in front for the framings
// of its values. It calls reserve before it allocates memory.
type inflation struct {
	limit   int // maximum size of the block, decompressed
	room    int // number of free bytes in front of the block
	reserve func(bytes int) error

	bytes  []byte // the free bytes, and then the block
	denied error  // error of reserve
}

// inflate decompresses a block.
func (b *inflation) inflate(d *FrameDecoder, codec string, block []byte) error {
	switch codec {
	case "null":
		if len(block) > b.limit {
			return b.tooMuch()
		}
		if err := b.grow(len(block)); err != nil {
			return err
		}
		b.bytes = append(b.bytes, block...)
		return nil
	case "deflate":
		// Bytes after the stream are ignored: fastavro leaves the end of a zlib
		// stream there.
		return b.readFrom(d.deflated(block), 4*len(block))
	case "snappy":
		return b.unsnap(block)
	case "zstandard":
		return b.unzstd(block)
	}
	return fmt.Errorf("%w: the codec is %.64q; use null, deflate, snappy or zstandard", ErrMalformed, codec)
}

func (b *inflation) tooMuch() error {
	return fmt.Errorf("%w: it has more than the %d bytes that are left of the limit", ErrInflated, b.limit)
}

// allow reserves memory.
func (b *inflation) allow(bytes int) error {
	b.denied = b.reserve(bytes)
	return b.denied
}

// grow makes room for a block of size bytes.
func (b *inflation) grow(size int) error {
	if err := b.allow(b.room + size); err != nil {
		return err
	}
	grown := append(make([]byte, 0, b.room+size), b.bytes...)[:max(len(b.bytes), b.room)]
	before := cap(b.bytes)
	b.bytes = grown
	return b.allow(-before)
}

// readFrom reads to the end of r. expected is the number of bytes that r will probably have.
func (b *inflation) readFrom(r io.Reader, expected int) error {
	if err := b.grow(min(expected+bytes.MinRead, b.limit+1)); err != nil {
		return err
	}
	for {
		n, err := r.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case len(b.bytes)-b.room > b.limit:
			return b.tooMuch()
		case err == io.EOF:
			return nil
		case err != nil:
			return malformed(err)
		}
		if len(b.bytes) == cap(b.bytes) {
			if err := b.grow(min(2*(cap(b.bytes)-b.room), b.limit+1)); err != nil {
				return err
			}
		}
	}
}

// clone copies a value.
func (b *inflation) clone(value []byte) ([]byte, error) {
	if err := b.allow(len(value)); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(value)), value...), nil
}

// deflated returns a reader that decompresses a block. It reuses the memory of the one
// before.
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

// unsnap decompresses snappy's block format, which Avro follows with a CRC-32.
func (b *inflation) unsnap(block []byte) error {
	if len(block) < crc32.Size {
		return fmt.Errorf("%w: it is shorter than its checksum", ErrMalformed)
	}
	block, sum := block[:len(block)-crc32.Size], block[len(block)-crc32.Size:]
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return malformed(err)
	}
	if n > b.limit {
		return fmt.Errorf("%w: it has %d bytes, and %d are left of the limit", ErrInflated, n, b.limit)
	}
	if err := b.grow(n); err != nil {
		return err
	}
	b.bytes = b.bytes[:b.room+n]
	if _, err := snappy.Decode(b.bytes[b.room:], block); err != nil {
		return malformed(err)
	}
	if crc32.ChecksumIEEE(b.bytes[b.room:]) != binary.BigEndian.Uint32(sum) {
		return malformed(errors.New("its checksum is wrong"))
	}
	return nil
}

func (b *inflation) unzstd(block []byte) error {
	// The decoder's limit is for the window, and for all of b.bytes.
	most := max(uint64(b.limit)+uint64(b.room), zstd.MinWindowSize)
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(most))
	if err != nil {
		return err
	}
	defer r.Close()
	// If the block does not have its decompressed size in front, the decoder may
	// allocate as much as the limit.
	size, first := b.limit, 4*len(block)+bytes.MinRead
	var header zstd.Header
	if header.Decode(block) == nil && header.HasFCS && header.FrameContentSize < uint64(b.limit) {
		size = int(header.FrameContentSize)
		first = size
	}
	if err := b.allow(b.room + size); err != nil {
		return err
	}
	b.bytes, err = r.DecodeAll(block, make([]byte, b.room, b.room+min(size, first)))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), err == nil && len(b.bytes)-b.room > b.limit:
		return b.tooMuch()
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: its zstandard window is larger than the %d bytes that are left for the block; write it with a smaller one", ErrMalformed, b.limit)
	case err != nil:
		return malformed(err)
	}
	return b.allow(cap(b.bytes) - b.room - size)
}
