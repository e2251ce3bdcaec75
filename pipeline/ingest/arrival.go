package ingest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// A body must begin within patience, and then come at the least rate, in bytes a
// second: a client that sends nothing is soon gone, one with a slow link is not.
const (
	patience  = 5 * time.Second
	leastRate = 16 << 10
)

// room is bytes of bodies that may be in hand at a time, wherever they are kept.
type room struct {
	limit int64
	taken atomic.Int64
}

// errNoRoom is returned when the room for bodies is taken.
var errNoRoom = errors.New("no room for bodies")

// arrival is a body as it comes in. What has really come takes room, whatever
// length was declared, until it is freed. It remembers why it ended early, which
// a decompressor may hide.
type arrival struct {
	content    io.Reader
	room       *room  // nil: whoever reads it accounts for it
	spooled    *lease // memory of a tensor; nil: no tensor
	connection *http.ResponseController
	began      time.Time
	timeout    time.Duration // of all of it
	bytes      int64
	charged    int64 // of them, to spooled
	err        error
}

// arriving begins with the body of a request. Whoever reads it frees it.
func arriving(w http.ResponseWriter, content io.Reader, in *room, timeout time.Duration) *arrival {
	a := &arrival{content: content, room: in, connection: http.NewResponseController(w), began: time.Now(), timeout: timeout}
	a.expect()
	return a
}

// expect sets until when more must have come.
func (a *arrival) expect() {
	within := patience + time.Duration(a.bytes)*time.Second/leastRate
	_ = a.connection.SetReadDeadline(a.began.Add(min(within, a.timeout))) // a test's recorder has none
}

func (a *arrival) Read(p []byte) (int, error) {
	n, err := a.content.Read(p)
	a.bytes += int64(n)
	if a.room != nil && a.room.taken.Add(int64(n)) > a.room.limit {
		err = errNoRoom
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

// free gives back the room, once the body is not referred to any more.
func (a *arrival) free() {
	if a.room != nil {
		a.room.taken.Add(-a.bytes)
	}
	a.bytes = 0
	if a.spooled != nil {
		a.spooled.end()
	}
}

// arrivalProblem is why a body did not arrive.
func (s *Stage) arrivalProblem(a *arrival) *problem {
	var over *http.MaxBytesError
	switch {
	case errors.As(a.err, &over):
		return s.bodyTooLarge()
	case errors.Is(a.err, errNoRoom):
		return newProblem(http.StatusTooManyRequests, reasonOverloaded, "%d bytes of requests are in hand, which is the most; nothing of this one was taken, send it again later", a.room.limit).retryAfter(1)
	case errors.Is(a.err, errNoMemory):
		return s.memoryProblem()
	case errors.Is(a.err, os.ErrDeadlineExceeded):
		return newProblem(http.StatusRequestTimeout, reasonRead, "the body came too slowly: %d bytes in %s; it must begin within %s, then come at %d bytes a second, and be whole within %s",
			a.bytes, time.Since(a.began).Round(time.Millisecond), patience, leastRate, a.timeout)
	}
	return newProblem(http.StatusBadRequest, reasonRead, "the body ended early: %v", a.err)
}
