package ingest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/morphogenetic/oona/intake"
)

// The first byte of a body must arrive within firstByteTimeout. From then on the
// client must sustain minRate, in bytes per second: one that sends nothing is
// disconnected soon, one with a slow link is not.
const (
	firstByteTimeout = 5 * time.Second
	minRate          = 16 << 10
)

// byteBudget limits the total size of bodies, in memory and on disk, from when their
// bytes are read until they are freed.
type byteBudget struct {
	limit int64
	taken atomic.Int64
}

// errBodyBudget is returned when the byte budget for bodies is used up.
var errBodyBudget = errors.New("the byte budget for bodies is used up")

// bodyReader reads the body of a request. The bytes that it has read count against
// the budget until the body is freed. The declared length does not count. It keeps the
// error that ended the body early, because a decompressor may hide that.
type bodyReader struct {
	content    io.Reader
	budget     *byteBudget // nil: the caller accounts for what it reads
	spooled    *lease      // memory of a tensor; nil: no tensor
	connection *http.ResponseController
	began      time.Time
	timeout    time.Duration // for the whole body
	bytes      int64         // that were read
	charged    int64         // of these, how many spooled was charged for
	err        error
}

// readBody returns a reader of the body of a request. The caller frees it.
func readBody(w http.ResponseWriter, content io.Reader, in *byteBudget, timeout time.Duration) *bodyReader {
	a := &bodyReader{content: content, budget: in, connection: http.NewResponseController(w), began: time.Now(), timeout: timeout}
	a.expect()
	return a
}

// expect sets the deadline of the next read.
func (a *bodyReader) expect() {
	within := firstByteTimeout + time.Duration(a.bytes)*time.Second/minRate
	_ = a.connection.SetReadDeadline(a.began.Add(min(within, a.timeout))) // a recorder of a test has no deadline
}

func (a *bodyReader) Read(p []byte) (int, error) {
	n, err := a.content.Read(p)
	a.bytes += int64(n)
	if a.budget != nil && a.budget.taken.Add(int64(n)) > a.budget.limit {
		err = errBodyBudget
	}
	if more := min(a.bytes, intake.SpooledInMemory) - a.charged; a.spooled != nil && more > 0 {
		// The capacity of a growing buffer is up to twice its content.
		if a.charged += more; !a.spooled.Grow(2 * int(more)) {
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

// free returns the body's bytes to the budgets. Nothing may use the body afterwards.
func (a *bodyReader) free() {
	if a.budget != nil {
		a.budget.taken.Add(-a.bytes)
	}
	a.bytes = 0
	if a.spooled != nil {
		a.spooled.end()
	}
}

// bodyProblem refuses a request whose body could not be read.
func (s *Stage) bodyProblem(a *bodyReader) *intake.Refusal {
	var over *http.MaxBytesError
	switch {
	case errors.As(a.err, &over):
		return s.bodyTooLarge()
	case errors.Is(a.err, errBodyBudget):
		return intake.Refuse(intake.ReasonOverloaded, "the tensors that are being uploaded have the maximum of %d bytes (--max-spool-bytes); nothing of this one was taken, send it again later", a.budget.limit).After(time.Second)
	case errors.Is(a.err, errNoMemory):
		return s.noMemory()
	case errors.Is(a.err, os.ErrDeadlineExceeded):
		return intake.Refuse(reasonSlow, "the body came too slowly: %d bytes in %s; it must begin within %s, then come at %d bytes a second, and be whole within %s",
			a.bytes, time.Since(a.began).Round(time.Millisecond), firstByteTimeout, minRate, a.timeout)
	}
	return intake.Refuse(reasonRead, "the body ended early: %v", a.err)
}
