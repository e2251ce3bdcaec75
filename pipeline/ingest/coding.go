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
)

// acceptedCodings are the values of Content-Encoding besides "identity".
const acceptedCodings = "gzip, zstd"

// inflater decompresses. Reset begins with another body.
type inflater interface {
	io.Reader
	Reset(r io.Reader) error
}

// codings have a pool of inflaters each: their tables and windows serve the
// next request.
type codings struct{ gzip, zstd sync.Pool }

const (
	// zstdWindow is the most that every decoder of HTTP content must have (RFC 9659),
	// in bytes, and more than the frames of a request need.
	zstdWindow = 8 << 20
	// zstdBlocks is what a decoder has besides a window: two blocks.
	zstdBlocks = 256 << 10
	// pooledWindow is the window of decoders that are used again.
	pooledWindow = pooled - zstdBlocks
	// gzipBytes is what a gzip.Reader takes.
	gzipBytes = 48 << 10
)

func newCodings() *codings {
	c := new(codings)
	c.gzip.New = func() any { return new(gzip.Reader) }
	c.zstd.New = func() any { return newZstd(pooledWindow) }
	return c
}

func newZstd(window uint64) *zstd.Decoder {
	// Without concurrency it has no goroutine, so that the pool may forget it.
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		panic(err) // the options are constants
	}
	return r
}

// of returns the pool for a request's body; nil: the body is as it is.
func (c *codings) of(h http.Header) (*sync.Pool, *refusal) {
	coding := strings.Join(h.Values("Content-Encoding"), ", ")
	switch strings.ToLower(coding) {
	case "", "identity":
		return nil, nil
	case "gzip", "x-gzip":
		return &c.gzip, nil
	case "zstd":
		return &c.zstd, nil
	}
	return nil, refuse(reasonMediaType,
		"Content-Encoding is %.64q; send the body as it is, or with one of the codings %s", coding, acceptedCodings)
}

const (
	// firstBuffer is what a body is read into at first. It is lent: what is only
	// declared takes no other memory.
	firstBuffer = 4 << 10
	// secondBuffer is the most that is allocated once that has come.
	secondBuffer = 64 << 10
)

var firstBuffers = sync.Pool{New: func() any { return new([firstBuffer]byte) }}

// receive reads the body as it is sent; declared is its length, if above 0.
func (s *Stage) receive(in *bodyReader, declared int64, held *lease) ([]byte, *refusal) {
	first, _ := firstBuffers.Get().(*[firstBuffer]byte)
	defer firstBuffers.Put(first)
	n, err := in.Read(first[:])
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader returns io.EOF itself
		return nil, s.bodyProblem(in)
	}
	// Records alias the body, and a publisher that is slower than its timeout
	// still holds them when the request has been answered: it is not pooled.
	size, factor, most := n, 2, s.cfg.MaxBodyBytes
	if declared > 0 {
		size, factor, most = int(min(declared, secondBuffer)), 4, declared
	}
	body, err := readAll(first[:n], in, held, size, factor, int(most))
	switch {
	case errors.Is(err, errNoMemory):
		return nil, s.memoryProblem()
	case err != nil:
		return nil, s.bodyProblem(in)
	}
	return body, nil
}

// errNoMemory is returned when there is no memory for a body.
var errNoMemory = errors.New("no memory for a body")

// readAll returns begun and what else there is to read, in memory that held has, as
// [io.ReadAll] does. Its buffer has size bytes at first, then factor times as many,
// and most unless there is more.
func readAll(begun []byte, r io.Reader, held *lease, size, factor, most int) ([]byte, error) {
	all := begun
	before := 0
	for size = min(size, most) + bytes.MinRead; ; size = max(min(factor*cap(all), most)+bytes.MinRead, cap(all)+bytes.MinRead) {
		if !held.grow(size) {
			return nil, errNoMemory
		}
		all = append(make([]byte, 0, size), all...)
		held.shrink(before)
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

// inflate decompresses the body, unless inflaters is nil. What comes of it does
// not exceed its limit by more than a byte.
func (s *Stage) inflate(body []byte, inflaters *sync.Pool, coding string, held *lease) ([]byte, *refusal) {
	if inflaters == nil {
		return body, nil
	}
	from, _ := inflaters.Get().(inflater)
	defer func() {
		_ = from.Reset(http.NoBody) // the pool keeps no bodies
		inflaters.Put(from)
	}()
	cost := gzipBytes
	if inflaters == &s.codings.zstd {
		cost = pooledWindow + zstdBlocks
	}
	plain, err := s.inflateBy(from, body, held, cost)
	if needsWindow(err) {
		large := newZstd(zstdWindow)
		defer large.Close()
		plain, err = s.inflateBy(large, body, held, zstdWindow+zstdBlocks)
	}
	switch {
	case errors.Is(err, errNoMemory):
		return nil, s.memoryProblem()
	case int64(len(plain)) > s.cfg.MaxDecompressedBytes:
		return nil, decompressedTooLarge(&s.cfg)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, refuse(reasonCoding, "the body is cut off within its %s stream, or a few bytes follow the stream that are none of it (%d bytes were decompressed)", coding, len(plain))
	case needsWindow(err):
		return nil, refuse(reasonCoding, "the body's zstd window is larger than %d bytes, the most that HTTP allows (RFC 9659); compress it without long distance matching, or at a lower level", zstdWindow)
	case err != nil:
		return nil, refuse(reasonCoding, "the body does not decompress as %s, after %d bytes: %v", coding, len(plain), err)
	}
	held.shrink(cap(body)) // nothing refers to it any more
	return plain, nil
}

// needsWindow: the decoder's window is too small. Where the content is one segment,
// its length is the window, and the decoder says that it is too long.
func needsWindow(err error) bool {
	return errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded)
}

// inflateBy decompresses with from, which takes cost bytes meanwhile.
func (s *Stage) inflateBy(from inflater, body []byte, held *lease, cost int) ([]byte, error) {
	if !held.grow(cost) {
		return nil, errNoMemory
	}
	defer held.shrink(cost)
	if err := from.Reset(bytes.NewReader(body)); err != nil {
		return nil, err
	}
	limit := s.cfg.MaxDecompressedBytes + 1
	plain, err := readAll(nil, io.LimitReader(from, limit), held, min(4*len(body), secondBuffer), 2, int(limit))
	if err != nil {
		held.shrink(cap(plain)) // it is not used
	}
	return plain, err
}

func (s *Stage) bodyTooLarge() *refusal {
	return refuse(reasonTooLarge,
		"the body has more than %d bytes (--max-body-bytes); send fewer frames a request, or split the frame by seed ids", s.cfg.MaxBodyBytes)
}

func decompressedTooLarge(cfg *Config) *refusal {
	return refuse(reasonTooLarge,
		"the body has more than %d bytes decompressed (--max-decompressed-bytes); send fewer frames a request, or split the frame by seed ids", cfg.MaxDecompressedBytes)
}
