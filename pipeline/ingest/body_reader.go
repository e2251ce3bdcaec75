package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/morphogenetic/oona/intake"
)

// The first byte of a body must arrive within firstByteTimeout, and no pause may be longer.
// From then on the client must send at least minRate bytes per second. So a client that sends
// nothing is disconnected soon, but one with a slow link is not. When half of the budget for
// bodies is in use, the rate is scarceRate, so that slow bodies do not keep others out.
const (
	firstByteTimeout = 5 * time.Second
	minRate          = 16 << 10
	scarceRate       = 1 << 20
)

// byteBudget limits the total size of bodies, in memory and on disk, from when their
// bytes are read until they are freed.
type byteBudget struct {
	limit int64
	taken atomic.Int64
}

// errBodyBudget is returned when the byte budget for bodies is used up.
var errBodyBudget = errors.New("the byte budget for bodies is used up")

// errShare is returned when a client has its share of that budget, and errTime, which wraps it,
// when it has its share of the processors.
var (
	errShare = errors.New("the client has its share")
	errTime  = fmt.Errorf("%w of the processors", errShare)
)

// bodyReader reads the body of a request. The bytes that it has read count against the budget
// until the body is freed; the declared length does not count. It keeps the error that ended
// the body early, because a decompressor may hide it.
type bodyReader struct {
	content    io.Reader
	budget     *byteBudget // nil: the caller accounts for what it reads
	by         *client
	held       *lease // memory that it is read into; nil: none
	tensor     bool   // it is a tensor
	events     bool   // it is a body of events, and not of frames
	chunked    bool
	connection *http.ResponseController
	began      time.Time
	timeout    time.Duration   // for the whole body
	bytes      int64           // number of bytes read
	charged    int64           // number of these for which held was charged, if it is a tensor
	waited     time.Duration   // what began was moved by because held has waited
	discarded  context.Context // ends the waits of a body that is discarded; nil: it is not
	err        error
}

// readBody returns a reader of the body of a request. The caller frees it.
func readBody(w http.ResponseWriter, content io.Reader, by *client, timeout time.Duration) *bodyReader {
	a := &bodyReader{content: content, by: by, connection: http.NewResponseController(w), began: time.Now(), timeout: timeout}
	a.expect(a.began)
	return a
}

// expect sets the deadline of the next read.
func (a *bodyReader) expect(now time.Time) {
	rate := time.Duration(minRate)
	if now.Sub(a.began) > firstByteTimeout/2 && a.scarce() {
		rate = scarceRate
	}
	within := min(firstByteTimeout+time.Duration(a.bytes)*time.Second/rate, a.timeout, now.Sub(a.began)+firstByteTimeout)
	_ = a.connection.SetReadDeadline(a.began.Add(within)) // a recorder of a test has no deadline
}

// scarce reports whether half of the budget for such bodies is in use.
func (a *bodyReader) scarce() bool {
	switch {
	case a.tensor:
		return a.budget.taken.Load() > a.budget.limit/2
	case a.held != nil:
		return a.held.share.scarce()
	}
	return false
}

// lastPiece is how long a body in chunks that was refused may still wait for its next piece.
const lastPiece = 250 * time.Millisecond

// interrupt ends the read that is in progress. Only the lease of the body calls it, when it is
// refused. After a deadline, nothing more can be read of a body in chunks, not even to discard it. So
// a read of that ends with the next piece, if the client is still sending.
func (a *bodyReader) interrupt() {
	ends := time.Now()
	if a.chunked {
		ends = ends.Add(lastPiece)
	}
	_ = a.connection.SetReadDeadline(ends)
}

// hangUp closes the connection after the answer if the body was refused for an older one. If the
// interrupt came just after the end of the body, net/http has taken it for the end of the connection,
// and would give the next requests a context that has ended.
func (a *bodyReader) hangUp(w http.ResponseWriter) {
	if a.held.yielded() {
		w.Header().Set("Connection", "close")
	}
}

// excuse moves the deadline by the time that the body has waited for memory.
func (a *bodyReader) excuse() {
	if a.held != nil && a.held.waited > a.waited {
		a.began = a.began.Add(a.held.waited - a.waited)
		a.waited = a.held.waited
		a.expect(time.Now())
	}
}

// pay makes the client wait if it sends large bodies faster than its share of the processors
// allows. It waits at most for the timeout of the body. The client cannot send while it waits,
// so its deadline moves by that time. That of a body that is discarded does not, as its client has its answer.
func (a *bodyReader) pay(n int) error {
	if a.bytes <= largeBody {
		return nil
	}
	cost := time.Duration(n) * byteCost
	if a.discarded != nil {
		if _, ok := a.by.pay(a.discarded, nil, cost, time.Until(a.began.Add(a.timeout))); !ok {
			return errTime
		}
		return nil
	}
	waited, ok := a.by.pay(a.by.of.cut, a.held, cost, a.timeout)
	if a.began = a.began.Add(waited); !ok {
		return errTime
	}
	return nil
}

func (a *bodyReader) Read(p []byte) (int, error) {
	a.excuse()
	if a.held.yielded() {
		a.err = errNoMemory
		return 0, a.err
	}
	n, err := a.content.Read(p[:min(len(p), pacePiece)])
	a.bytes += int64(n)
	a.by.received(n)
	if a.budget != nil && a.budget.taken.Add(int64(n)) > a.budget.limit {
		err = errBodyBudget
	}
	if a.tensor {
		has := a.by.spooled.Add(int64(n))
		if err == nil && !a.by.alone() && !a.by.of.allows(has, a.budget.limit-a.budget.taken.Load()) {
			err = errShare
		}
	}
	if more := min(a.bytes, intake.SpooledInMemory) - a.charged; a.tensor && more > 0 && (err == nil || errors.Is(err, io.EOF)) {
		// The capacity of a growing buffer is up to twice its content.
		if a.charged += more; !a.held.Grow(2 * int(more)) {
			err = errNoMemory
		}
		if a.charged == intake.SpooledInMemory && !a.held.prevails() { // the rest goes to the disk
			err = errNoMemory
		}
		a.excuse()
	}
	if a.tensor && errors.Is(err, io.EOF) && !a.held.prevails() {
		err = errNoMemory
	}
	if err == nil {
		err = a.pay(n)
	}
	if a.held.yielded() {
		err = errNoMemory
	}
	switch {
	case err == nil:
		a.expect(time.Now())
	case !errors.Is(err, io.EOF):
		a.err = err
	}
	return n, err
}

// free gives the body's bytes back to the budgets. The body must not be used afterwards.
func (a *bodyReader) free() {
	if a.budget != nil {
		a.budget.taken.Add(-a.bytes)
	}
	if a.tensor {
		a.by.spooled.Add(-a.bytes)
		a.held.end()
	}
	a.bytes = 0
}

// bodyProblem refuses a request whose body could not be read.
func (s *Stage) bodyProblem(a *bodyReader) *intake.Refusal {
	var over *http.MaxBytesError
	switch {
	case errors.As(a.err, &over):
		return s.bodyTooLarge(a.events)
	case errors.Is(a.err, errBodyBudget):
		return intake.Refuse(intake.ReasonOverloaded, "the tensors that are being uploaded have the maximum of %d bytes (--max-upload-bytes); this request was refused as a whole; send it again later", a.budget.limit).After(time.Second)
	case errors.Is(a.err, errTime):
		return s.timeTaken(a.by)
	case errors.Is(a.err, errShare):
		return s.shareTaken()
	case errors.Is(a.err, errNoMemory):
		return s.noMemory(a.held)
	case errors.Is(a.err, os.ErrDeadlineExceeded):
		return intake.Refuse(reasonSlow, "the body came too slowly: %d bytes in %s; it must begin within %s and not pause for longer, come at %d bytes a second, or %d while half of the memory is used, and be whole within %s",
			a.bytes, time.Since(a.began).Round(time.Millisecond), firstByteTimeout, minRate, scarceRate, a.timeout)
	}
	return intake.Refuse(reasonRead, "the body ended early: %v", a.err)
}
