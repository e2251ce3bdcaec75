package ingest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/size"
)

// acceptedCodings are the values of Content-Encoding besides "identity".
const acceptedCodings = "gzip, zstd"

// inflater decompresses. Reset starts with another body.
type inflater interface {
	io.Reader
	Reset(r io.Reader) error
}

// codings has a pool of inflaters for each coding, so that their tables and windows are reused.
type codings struct{ gzip, zstd sync.Pool }

// pooled is the maximum size in bytes of an element that a pool keeps. Buffers grow with use,
// so without the limit each would become as large as the largest body.
const pooled = 1 << 20

const (
	// zstdWindow is the window in bytes that every decoder of HTTP content must
	// support (RFC 9659). Frames of a request need less.
	zstdWindow = 8 << 20
	// zstdBlocks is the memory of a decoder besides its window: two blocks.
	zstdBlocks = 256 << 10
	// pooledWindow is the window of the decoders in the pool.
	pooledWindow = pooled - zstdBlocks
	// gzipBytes is the memory of a gzip.Reader.
	gzipBytes = 48 << 10
)

func newCodings() *codings {
	c := new(codings)
	c.gzip.New = func() any { return new(gzip.Reader) }
	c.zstd.New = func() any { return newZstd(pooledWindow) }
	return c
}

func newZstd(window uint64) *zstd.Decoder {
	// Without concurrency it has no goroutine, so the pool may drop it without closing it.
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		panic(err) // the options are constants, so an error is a bug
	}
	return r
}

// of returns the pool for the body of a request, or nil if the body is not compressed.
func (c *codings) of(h http.Header) (*sync.Pool, *intake.Refusal) {
	coding := strings.Join(h.Values("Content-Encoding"), ", ")
	switch strings.ToLower(coding) {
	case "", "identity":
		return nil, nil
	case "gzip", "x-gzip":
		return &c.gzip, nil
	case "zstd":
		return &c.zstd, nil
	}
	return nil, intake.Refuse(reasonMediaType,
		"Content-Encoding is %.64q; send the body uncompressed, or with one of the codings %s", coding, acceptedCodings)
}

const (
	// firstBuffer is the size of the buffer for the first read of a body. It comes
	// from a pool, so a request that has only announced a body uses no other memory.
	firstBuffer = 4 << 10
	// secondBuffer is the maximum size of the buffer that is allocated after the first read.
	secondBuffer = 64 << 10
)

var firstBuffers = sync.Pool{New: func() any { return new([firstBuffer]byte) }}

// receive reads the body without decompressing it. declared is its length if above 0.
func (s *Stage) receive(in *bodyReader, declared int64, held *lease) ([]byte, *intake.Refusal) {
	first, _ := firstBuffers.Get().(*[firstBuffer]byte)
	defer firstBuffers.Put(first)
	n, err := in.Read(first[:])
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader returns io.EOF itself
		return nil, s.bodyProblem(in)
	}
	// Records alias the body, so it does not come from a pool.
	size, factor, most := n, 2, s.cfg.MaxBodyBytes
	if declared > 0 {
		size, factor, most = int(min(declared, secondBuffer)), 4, declared
	}
	body, err := readAll(first[:n], in, held, size, factor, int(most))
	switch {
	case errors.Is(err, errNoMemory):
		return nil, s.noMemory(held)
	case err != nil:
		return nil, s.bodyProblem(in)
	case !held.prevails():
		return nil, s.noMemory(held)
	}
	return body, nil
}

// errNoMemory is returned if there is no memory for a body.
var errNoMemory = errors.New("no memory for a body")

// readAll returns begun followed by everything in r, like [io.ReadAll], in memory of held. Its
// buffer has size bytes at first, and grows by factor up to most. Beyond most it grows only if
// there is more to read.
func readAll(begun []byte, r io.Reader, held *lease, size, factor, most int) ([]byte, error) {
	all := begun
	before := 0
	for size = min(size, most) + bytes.MinRead; ; size = max(min(factor*cap(all), most)+bytes.MinRead, cap(all)+bytes.MinRead) {
		if !held.Grow(size) {
			return nil, errNoMemory
		}
		all = append(make([]byte, 0, size), all...)
		held.Shrink(before)
		before = cap(all)
		for len(all) < cap(all) {
			n, err := r.Read(all[len(all):cap(all)])
			all = all[:len(all)+n]
			if err == io.EOF {
				return all, nil
			}
			if err != nil {
				return all, err
			}
		}
	}
}

// inflate decompresses the body, unless inflaters is nil. It stops after one byte more than the
// limit.
func (s *Stage) inflate(body []byte, inflaters *sync.Pool, coding string, held *lease, work *work, events bool) ([]byte, *intake.Refusal) {
	if inflaters == nil {
		return body, nil
	}
	from, _ := inflaters.Get().(inflater)
	defer func() {
		_ = from.Reset(http.NoBody) // an inflater in the pool must not keep the body in memory
		inflaters.Put(from)
	}()
	cost := gzipBytes
	if inflaters == &s.codings.zstd {
		cost = pooledWindow + zstdBlocks
	}
	plain, err := s.inflateBy(from, body, held, work, cost)
	if needsWindow(err) {
		large := newZstd(zstdWindow)
		defer large.Close()
		plain, err = s.inflateBy(large, body, held, work, zstdWindow+zstdBlocks)
	}
	switch {
	case errors.Is(err, errNoMemory):
		return nil, s.noMemory(held)
	case errors.Is(err, errNoPlace):
		return nil, s.noPlace(held, work.place)
	case int64(len(plain)) > s.cfg.MaxDecompressedBytes:
		return nil, intake.DecompressedTooLarge(s.cfg.MaxDecompressedBytes, events)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, intake.Refuse(reasonCoding, "the %s stream of the body is incomplete, or other bytes follow it (%d bytes were decompressed)", coding, len(plain))
	case needsWindow(err):
		return nil, intake.Refuse(reasonCoding, "the zstd window of the body is larger than %s, the maximum for HTTP (RFC 9659); compress the body without long-distance matching, or at a lower level", size.Text(zstdWindow))
	case err != nil:
		return nil, intake.Refuse(reasonCoding, "the body could not be decompressed as %s: after %d bytes: %v", coding, len(plain), err)
	}
	held.Shrink(cap(body)) // the compressed body is not used any more
	return plain, nil
}

// needsWindow reports whether a decoder failed because its window is too small. If the
// content is a single segment, its length is the window, and the decoder reports that
// the content is too long.
func needsWindow(err error) bool {
	return errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded)
}

// inflateBy decompresses with from, which uses cost bytes of memory during that time.
func (s *Stage) inflateBy(from inflater, body []byte, held *lease, work *work, cost int) ([]byte, error) {
	if !held.Grow(cost) {
		return nil, errNoMemory
	}
	defer held.Shrink(cost)
	if err := from.Reset(bytes.NewReader(body)); err != nil {
		return nil, err
	}
	limit := s.cfg.MaxDecompressedBytes + 1
	plain, err := readAll(nil, io.LimitReader(&paced{from, work}, limit), held, min(4*len(body), secondBuffer), 2, int(limit))
	if err != nil {
		held.Shrink(cap(plain)) // the buffer is not used any more
	}
	return plain, err
}

func (s *Stage) bodyTooLarge(events bool) *intake.Refusal {
	return intake.Refuse(intake.ReasonTooLarge, "the body is larger than %s (--max-body-bytes); %s", size.Text(s.cfg.MaxBodyBytes), intake.SendLess(events))
}
