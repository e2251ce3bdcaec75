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

// zstdWindow is the most that every decoder of HTTP content must have (RFC 9659),
// in bytes, and more than the frames of a request need.
const zstdWindow = 8 << 20

func newCodings() *codings {
	c := new(codings)
	c.gzip.New = func() any { return new(gzip.Reader) }
	c.zstd.New = func() any {
		// Without concurrency it has no goroutine, so that the pool may forget it.
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			panic(err) // the options are constants
		}
		return r
	}
	return c
}

// of returns the pool for a request's body; nil: the body is as it is.
func (c *codings) of(h http.Header) (*sync.Pool, *problem) {
	coding := strings.Join(h.Values("Content-Encoding"), ", ")
	switch strings.ToLower(coding) {
	case "", "identity":
		return nil, nil
	case "gzip", "x-gzip":
		return &c.gzip, nil
	case "zstd":
		return &c.zstd, nil
	}
	return nil, newProblem(http.StatusUnsupportedMediaType, reasonMediaType,
		"Content-Encoding is %.64q; send the body as it is, or with one of the codings %s", coding, acceptedCodings).with("Accept-Encoding", acceptedCodings)
}

// firstBuffer is the most that is allocated for a body before any of it has come.
const firstBuffer = 64 << 10

// receive reads the body as it is sent; declared is its length, if above 0.
func (s *Stage) receive(in *arrival, declared int64) ([]byte, *problem) {
	// Records alias the body, and a publisher that is slower than its timeout
	// still holds them when the request has been answered: it is not pooled.
	var body bytes.Buffer
	body.Grow(int(min(max(declared, 0), firstBuffer)) + bytes.MinRead)
	if _, err := body.ReadFrom(in); err != nil {
		return nil, s.arrivalProblem(in)
	}
	return body.Bytes(), nil
}

// inflate decompresses the body, unless inflaters is nil. What comes of it does
// not exceed its limit by more than a byte.
func (s *Stage) inflate(body []byte, inflaters *sync.Pool, coding string) ([]byte, *problem) {
	if inflaters == nil {
		return body, nil
	}
	from, _ := inflaters.Get().(inflater)
	defer func() {
		_ = from.Reset(http.NoBody) // the pool keeps no bodies
		inflaters.Put(from)
	}()
	var plain bytes.Buffer
	err := from.Reset(bytes.NewReader(body))
	if err == nil {
		_, err = plain.ReadFrom(io.LimitReader(from, s.cfg.MaxDecompressedBytes+1))
	}
	switch {
	case int64(plain.Len()) > s.cfg.MaxDecompressedBytes:
		return nil, decompressedTooLarge(&s.cfg)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, newProblem(http.StatusBadRequest, reasonCoding, "the body is cut off within its %s stream, or a few bytes follow the stream that are none of it (%d bytes were decompressed)", coding, plain.Len())
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, newProblem(http.StatusBadRequest, reasonCoding, "the body's zstd window is larger than %d bytes, the most that HTTP allows (RFC 9659); compress it without long distance matching, or at a lower level", zstdWindow)
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, reasonCoding, "the body does not decompress as %s, after %d bytes: %v", coding, plain.Len(), err)
	}
	return plain.Bytes(), nil
}

func (s *Stage) bodyTooLarge() *problem {
	return newProblem(http.StatusRequestEntityTooLarge, reasonTooLarge,
		"the body has more than %d bytes (--max-body-bytes); send fewer frames a request, or split the frame by seed ids", s.cfg.MaxBodyBytes)
}

func decompressedTooLarge(cfg *Config) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, reasonTooLarge,
		"the body has more than %d bytes decompressed (--max-decompressed-bytes); send fewer frames a request, or split the frame by seed ids", cfg.MaxDecompressedBytes)
}
