package ingest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// The first byte of a body must arrive within firstByteTimeout. From then on the
// client must sustain minRate, in bytes per second: one that sends nothing is
// disconnected soon, one with a slow link is not.
const (
	firstByteTimeout = 5 * time.Second
	minRate          = 16 << 10
)

// byteBudget bounds the bytes of all bodies that are being read or were read and
// are still used, wherever they are kept.
type byteBudget struct {
	limit int64
	taken atomic.Int64
}

// errBodyBudget is returned when the byte budget for bodies is used up.
var errBodyBudget = errors.New("the byte budget for bodies is used up")

// bodyReader reads the body of a request. The bytes that were read count against
// the budget until the body is freed, whatever length was declared. It remembers why
// the body ended early, as a decompressor may hide that.
type bodyReader struct {
	content    io.Reader
	budget     *byteBudget // nil: the caller accounts for what it reads
	spooled    *lease      // memory of a tensor; nil: no tensor
	connection *http.ResponseController
	began      time.Time
	timeout    time.Duration // of all of it
	bytes      int64
	charged    int64 // of them, to spooled
	err        error
}

// readBody returns a reader of the body of a request. The caller frees it.
func readBody(w http.ResponseWriter, content io.Reader, in *byteBudget, timeout time.Duration) *bodyReader {
	a := &bodyReader{content: content, budget: in, connection: http.NewResponseController(w), began: time.Now(), timeout: timeout}
	a.expect()
	return a
}

// expect sets the time by which more must have arrived.
func (a *bodyReader) expect() {
	within := firstByteTimeout + time.Duration(a.bytes)*time.Second/minRate
	_ = a.connection.SetReadDeadline(a.began.Add(min(within, a.timeout))) // a test's recorder has none
}

func (a *bodyReader) Read(p []byte) (int, error) {
	n, err := a.content.Read(p)
	a.bytes += int64(n)
	if a.budget != nil && a.budget.taken.Add(int64(n)) > a.budget.limit {
		err = errBodyBudget
	}
	if more := min(a.bytes, spooledInMemory) - a.charged; a.spooled != nil && more > 0 {
		// A buffer that grows has up to twice what is in it.
		if a.charged += more; !a.spooled.grow(2 * int(more)) {
			err = errNoMemory
		}
	}
	switch {
	case err == nil:
		a.expect()
	case err != io.EOF:
		a.err = err
	}
	return n, err
}

// free gives back what the body used of the budget. Nothing may refer to the body
// any more.
func (a *bodyReader) free() {
	if a.budget != nil {
		a.budget.taken.Add(-a.bytes)
	}
	a.bytes = 0
	if a.spooled != nil {
		a.spooled.end()
	}
}

// bodyProblem returns the answer to a request whose body could not be read.
func (s *Stage) bodyProblem(a *bodyReader) *refusal {
	var over *http.MaxBytesError
	switch {
	case errors.As(a.err, &over):
		return s.bodyTooLarge()
	case errors.Is(a.err, errBodyBudget):
		return refuse(reasonOverloaded, "the bodies of requests that are being served have %d bytes, which is the most; nothing of this one was taken, send it again later", a.budget.limit).after(time.Second)
	case errors.Is(a.err, errNoMemory):
		return s.memoryProblem()
	case errors.Is(a.err, os.ErrDeadlineExceeded):
		refused := refuse(reasonRead, "the body came too slowly: %d bytes in %s; it must begin within %s, then come at %d bytes a second, and be whole within %s",
			a.bytes, time.Since(a.began).Round(time.Millisecond), firstByteTimeout, minRate, a.timeout)
		refused.slow = true
		return refused
	}
	return refuse(reasonRead, "the body ended early: %v", a.err)
}
