package ingest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// Many clients look for the answer only once they have sent the whole body, and
// find a connection that was reset if it is closed before that. So the rest of a
// refused request's body is read and thrown away, within these bounds. A body
// must keep the least rate as well, as every other.
const (
	discardConnections = 64               // at a time
	discardBytes       = 32 << 20         // or max-body-bytes, where that is more
	discardTime        = 10 * time.Second // in all
)

// What is allowed to a connection beyond discardConnections: about what net/http
// grants every request by itself.
const (
	hastyBytes = 256 << 10
	hastyTime  = 500 * time.Millisecond
)

// Why a connection was closed while its client was still sending.
const (
	cutConnections = "connections"
	cutBytes       = "bytes"
	cutTime        = "time"
	cutStop        = "stop"
)

// requestBody is the body of a request. It knows whether it was read to its end.
type requestBody struct {
	io.ReadCloser
	ended bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// watchBody has a request's body note whether it was read to its end, for as long
// as it is served.
func watchBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &requestBody{ReadCloser: r.Body, ended: r.Body == nil || r.Body == http.NoBody}
		r.Body = body
		defer func() { r.Body = body.ReadCloser }() // net/http looks for its own type
		next.ServeHTTP(w, r)
	})
}

// refuse answers with the problem at once, and then reads what the client has
// left to send.
func (s *Stage) refuse(w http.ResponseWriter, r *http.Request, refused *refusal) {
	body, _ := r.Body.(*requestBody)
	if body == nil || body.ended || refused.slow {
		writeProblem(w, refused) // nothing is left to send, or it would not come in time
		return
	}
	connection := http.NewResponseController(w)
	if err := connection.EnableFullDuplex(); err != nil { // a test's recorder
		writeProblem(w, refused)
		return
	}
	w.Header().Set("Connection", "close")
	writeProblem(w, refused)
	if err := connection.Flush(); err != nil {
		return // the client is gone
	}
	if by := s.discard(w, body); by != "" {
		s.metrics.refusalsCut.WithLabelValues(by).Inc()
		s.warn("a refused request was still being sent when its connection was closed: its client may not have seen the answer",
			"by", by, "status", statusOf(refused), "reason", refused.reason, "client", r.RemoteAddr)
	}
}

// discard reads a body to its end. If there is more of it than is allowed, it
// returns what ended it, else nothing.
func (s *Stage) discard(w http.ResponseWriter, body io.Reader) (by string) {
	most, within := max(discardBytes, s.cfg.MaxBodyBytes), discardTime
	select {
	case s.discards <- struct{}{}:
		defer func() { <-s.discards }()
	default:
		most, within, by = hastyBytes, hastyTime, cutConnections
	}
	in := readBody(w, body, &byteBudget{limit: most}, within)
	// A stage that is to end waits for nobody whom it has answered.
	defer context.AfterFunc(s.discarding, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })()
	_, err := io.Copy(io.Discard, stoppable{s.discarding, in})
	switch {
	case err == nil:
		return ""
	case s.discarding.Err() != nil:
		return cutStop
	case by == "" && errors.Is(err, errBodyBudget):
		by = cutBytes
	case by == "" && errors.Is(err, os.ErrDeadlineExceeded):
		by = cutTime
	case !errors.Is(err, errBodyBudget) && !errors.Is(err, os.ErrDeadlineExceeded):
		return "" // the client has closed the connection
	}
	return by
}

// stoppable is a body that ends with its context. Where its reader sets
// deadlines too, the context is looked at after that and before each read.
type stoppable struct {
	ctx  context.Context
	body io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.body.Read(p)
}
