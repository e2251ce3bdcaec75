package tracing

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strconv"
)

// TraceID identifies a trace.
type TraceID [16]byte

// SpanID identifies a span in a trace.
type SpanID [8]byte

// Context identifies a span, and says whether it is sampled. Its text form is the
// traceparent of W3C Trace Context. The zero Context is of no span.
type Context struct {
	Trace   TraceID
	Span    SpanID
	Sampled bool
}

// Valid reports whether c is of a span.
func (c Context) Valid() bool { return c.Trace != TraceID{} && c.Span != SpanID{} }

const (
	traceparentLength = len("00-00112233445566778899aabbccddeeff-0011223344556677-01")
	sampledFlag       = 1
)

// Parse returns the context of a traceparent, or false if it is not valid. It accepts the
// form of version 00, for later versions too.
func Parse(traceparent string) (c Context, ok bool) {
	s := traceparent
	if len(s) != traceparentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return Context{}, false
	}
	var version, flags [1]byte
	ok = unhex(version[:], s[:2]) && unhex(c.Trace[:], s[3:35]) && unhex(c.Span[:], s[36:52]) && unhex(flags[:], s[53:]) && c.Valid()
	if !ok {
		return Context{}, false
	}
	c.Sampled = flags[0]&sampledFlag != 0
	return c, true
}

// unhex decodes lower-case hexadecimal digits. It does not allocate.
func unhex(to []byte, digits string) bool {
	for i := range to {
		high, low := nibble(digits[2*i]), nibble(digits[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return math.MaxUint8
}

// String returns the traceparent of c.
func (c Context) String() string {
	text := make([]byte, 0, traceparentLength)
	text = append(text, "00-"...)
	text = hex.AppendEncode(text, c.Trace[:])
	text = append(text, '-')
	text = hex.AppendEncode(text, c.Span[:])
	if c.Sampled {
		return string(append(text, "-01"...))
	}
	return string(append(text, "-00"...))
}

// String returns the identifier in hexadecimal.
func (id TraceID) String() string { return hex.EncodeToString(id[:]) }

// String returns the identifier in hexadecimal.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// NewTrace returns the context of a new root span.
func NewTrace(sampled bool) Context {
	c := Context{Sampled: sampled}
	binary.BigEndian.PutUint64(c.Trace[:8], rand.Uint64())
	binary.BigEndian.PutUint64(c.Trace[8:], rand.Uint64()|1) // not zero
	c.Span = newSpan()
	return c
}

// Child returns the context of a new span in the trace of c.
func (c Context) Child() Context {
	c.Span = newSpan()
	return c
}

func newSpan() (id SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1) // not zero
	return id
}

// Derived returns the context of a root span whose identifiers are a function of the
// parts, so that work that is done again has the same span.
func Derived(sampled bool, text string, parts ...int64) Context {
	h := sha256.New()
	h.Write([]byte(text)) // never fails
	buffer := make([]byte, 0, 64)
	for _, part := range parts {
		buffer = binary.BigEndian.AppendUint64(buffer, uint64(part))
	}
	h.Write(buffer)
	sum := h.Sum(nil)
	c := Context{Sampled: sampled}
	copy(c.Trace[:], sum)
	copy(c.Span[:], sum[len(c.Trace):])
	return c
}

// Sampler decides at the head of a trace whether it is sampled. It is a threshold of 64
// bits.
type Sampler struct {
	below uint64
	all   bool
}

// NewSampler returns a sampler that takes about a part of the traces, from 0 to 1.
func NewSampler(ratio float64) Sampler {
	if ratio >= 1 {
		return Sampler{all: true}
	}
	return Sampler{below: uint64(max(ratio, 0) * (1 << 32) * (1 << 32))}
}

// Frame decides by the identity of a frame, so that a client and ingest decide alike, and a
// request that is sent again is decided again in the same way: by the first eight bytes of
// the SHA-256 of "PRODUCER EPOCH SEQUENCE", in decimal, as a big-endian number.
func (s Sampler) Frame(producer string, epoch, sequence int64) bool {
	if s.all || s.below == 0 {
		return s.all
	}
	text := make([]byte, 0, 128)
	text = append(text, producer...)
	text = strconv.AppendInt(append(text, ' '), epoch, 10)
	text = strconv.AppendInt(append(text, ' '), sequence, 10)
	sum := sha256.Sum256(text)
	return binary.BigEndian.Uint64(sum[:]) < s.below
}

// Trace decides by the identifier of a trace, for a trace without frames.
func (s Sampler) Trace(id TraceID) bool {
	return s.all || binary.BigEndian.Uint64(id[8:]) < s.below
}
