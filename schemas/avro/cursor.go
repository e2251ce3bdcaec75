package avro

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/morphogenetic/oona"
)

// cursor reads Avro's binary encoding. After the first error it no longer moves and
// returns zeros, so a caller checks err once, at the end.
type cursor struct {
	data []byte
	at   int
	err  *DecodeError
}

func (c *cursor) fail(field string, cause error, format string, args ...any) {
	if c.err == nil {
		c.err = &DecodeError{field, c.at, fmt.Errorf("%w: "+format, append([]any{cause}, args...)...)}
	}
}

// within adds the array element in which an error happened to the field of the error.
func (c *cursor) within(array string, index int) {
	c.err.Field = array + "[" + strconv.Itoa(index) + "]." + c.err.Field
}

// long reads a zigzag varint of at most ten bytes.
func (c *cursor) long(field string) int64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Varint(c.data[c.at:])
	if n <= 0 {
		c.failVarint(field, n, 64)
		return 0
	}
	c.at += n
	return v
}

// int reads a zigzag varint of at most five bytes.
func (c *cursor) int(field string) int32 {
	if c.err != nil {
		return 0
	}
	u, n := binary.Uvarint(c.data[c.at:min(len(c.data), c.at+binary.MaxVarintLen32)])
	if n == 0 && len(c.data)-c.at >= binary.MaxVarintLen32 || u > math.MaxUint32 {
		n = -1
	}
	if n <= 0 {
		c.failVarint(field, n, 32)
		return 0
	}
	c.at += n
	return int32(u>>1) ^ -int32(u&1)
}

func (c *cursor) failVarint(field string, n, bits int) {
	if n == 0 {
		c.fail(field, ErrTruncated, "in the middle of a number")
		return
	}
	c.fail(field, errNumber, "it does not fit %d bits", bits)
}

// take returns the next n bytes, which alias the data.
func (c *cursor) take(field string, n int64) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 {
		c.fail(field, ErrMalformed, "a length of %d", n)
		return nil
	}
	if n > int64(len(c.data)-c.at) {
		c.fail(field, ErrTruncated, "%d bytes are announced, %d are left", n, len(c.data)-c.at)
		return nil
	}
	end := c.at + int(n)
	b := c.data[c.at:end:end]
	c.at = end
	return b
}

// bytes reads a length and that many bytes, which alias the data.
func (c *cursor) bytes(field string) []byte { return c.take(field, c.long(field)) }

// block is a run of an array's elements.
type block struct {
	count int // number of elements; 0 if the array has ended
	end   int // where the block must end; -1 if the size of the block is not known
}

// block begins a block of elements that have at least size bytes each. The count is
// checked against the rest of the data, so the caller can allocate memory for it.
func (c *cursor) block(field string, size int) block {
	count := c.long(field)
	if count == 0 {
		return block{}
	}
	b := block{end: -1}
	left := len(c.data) - c.at
	if count < 0 {
		stated := c.long(field)
		if c.err != nil {
			return block{}
		}
		left = len(c.data) - c.at
		if stated < 0 {
			c.fail(field, errBlockSize, "it is %d", stated)
			return block{}
		}
		if stated > int64(left) {
			c.fail(field, errBlockCut, "%d bytes are announced, %d are left", stated, left)
			return block{}
		}
		left = int(stated)
		b.end = c.at + left
		count = -count
	}
	if count < 0 || count > int64(left/size) { // count is still negative if it was the smallest int64
		cause := ErrTruncated
		if b.end >= 0 {
			cause = errBlockCut
		}
		c.fail(field, cause, "%d entries are announced, %d bytes are left for them", uint64(count), left)
		return block{}
	}
	b.count = int(count)
	return b
}

// endBlock checks that a block has the size that is written in front of it. Otherwise readers
// that skip the block would continue elsewhere.
func (c *cursor) endBlock(field string, b block) {
	if c.err == nil && b.end >= 0 && b.end != c.at {
		c.fail(field, errBlockSize, "the block should end at byte %d", b.end)
	}
}

var (
	errNumber    = fmt.Errorf("%w: a number is too large", ErrMalformed)
	errBlockSize = fmt.Errorf("%w: a block's stated size is not its size", ErrMalformed)
	errBlockCut  = fmt.Errorf("%w inside a block", ErrTruncated)
)

// seedIDs appends the next n ints. Ids below 64 have one byte, other ids below 8,192 have
// two. Runs of one or the other are read eight bytes at a time.
func (c *cursor) seedIDs(dst []oona.SeedID, n int) []oona.SeedID {
	const continued = 0x8080808080808080
	start := len(dst)
	dst = slices.Grow(dst, n)[:start+n]
	out := dst[start:]
	for len(out) >= 4 && len(c.data)-c.at >= 8 {
		w := binary.LittleEndian.Uint64(c.data[c.at:])
		switch {
		case w&continued == 0x0080008000800080:
			// Each 16-bit lane: seven low bits, the mark, seven high bits.
			w = w&0x007f007f007f007f | w>>1&0x3f803f803f803f80
			out[0] = unzigzag(uint32(w & 0xffff))
			out[1] = unzigzag(uint32(w >> 16 & 0xffff))
			out[2] = unzigzag(uint32(w >> 32 & 0xffff))
			out[3] = unzigzag(uint32(w >> 48))
			out = out[4:]
			c.at += 8
		case w&continued&0xffffffff == 0:
			out[0] = unzigzag(uint32(w & 0xff))
			out[1] = unzigzag(uint32(w >> 8 & 0xff))
			out[2] = unzigzag(uint32(w >> 16 & 0xff))
			out[3] = unzigzag(uint32(w >> 24 & 0xff))
			out = out[4:]
			c.at += 4
		default:
			out[0] = oona.SeedID(c.int("seed_ids"))
			out = out[1:]
			if c.err != nil {
				return dst[:start]
			}
		}
	}
	for i := range out {
		out[i] = oona.SeedID(c.int("seed_ids"))
	}
	return dst
}

func unzigzag(u uint32) oona.SeedID { return oona.SeedID(int32(u>>1) ^ -int32(u&1)) }
