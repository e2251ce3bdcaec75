package ingest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/morphogenetic/oona/intake"
)

// Many clients read the answer only after they have sent the whole body. If the
// connection is closed before that, they see a reset instead of the answer. So the
// rest of the body of a refused request is read and discarded, within these limits.
// The minimum rate holds as for every body.
const (
	discardConnections = 64               // at a time
	discardBytes       = 32 << 20         // or max-body-bytes, if that is more
	discardTime        = 10 * time.Second // per connection
)

// The limits for an unknown client. It does not count towards discardConnections, so that such
// clients take nothing from the others.
const (
	strangerBytes = 64 << 10
	strangerTime  = time.Second
)

// The limits for connections beyond discardConnections. They are similar to those of net/http.
const (
	hastyBytes = 256 << 10
	hastyTime  = 500 * time.Millisecond
)

// The limit at which a connection was closed while its client was still sending.
const (
	cutConnections = "connections"
	cutBytes       = "bytes"
	cutTime        = "time"
	cutStop        = "stop"
)

// requestBody is the body of a request. It records whether it was read to its end, and which
// client sends it.
type requestBody struct {
	io.ReadCloser
	ended bool
	waits bool // the client has announced that it waits for "100 Continue", and nothing was read yet
	by    *client
}

// clientOf returns the client of a request.
func clientOf(r *http.Request) *client {
	body, _ := r.Body.(*requestBody) // Handler has set it
	return body.by
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.waits = false
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// watchBody makes the body of each request a requestBody while it is served.
func watchBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &requestBody{ReadCloser: r.Body, ended: r.Body == nil || r.Body == http.NoBody}
		body.waits = strings.EqualFold(r.Header.Get("Expect"), "100-continue")
		r.Body = body
		defer func() { r.Body = body.ReadCloser }() // net/http expects its own type
		next.ServeHTTP(w, r)
	})
}

// refuse answers with the problem, and then reads the rest of what the client sends.
func (s *Stage) refuse(w http.ResponseWriter, r *http.Request, refused *intake.Refusal) {
	body, _ := r.Body.(*requestBody)
	if body == nil || body.ended || refused.Reason == reasonSlow {
		writeProblem(w, refused) // nothing is left to send, or it would come too slowly
		return
	}
	connection := http.NewResponseController(w)
	if err := connection.EnableFullDuplex(); err != nil { // a recorder of a test
		writeProblem(w, refused)
		return
	}
	w.Header().Set("Connection", "close")
	writeProblem(w, refused)
	if err := connection.Flush(); err != nil {
		return // the client is gone
	}
	if by := s.discard(w, body, refused.Reason); by != "" {
		_ = connection.SetReadDeadline(time.Now()) // or net/http would read another 256 KiB
		s.metrics.refusalsCut.WithLabelValues(by).Inc()
		s.noteCut(r, refused, by)
	}
}

// noteCut logs that a connection was closed while its client was still sending. Unknown clients
// must not be able to fill the log.
func (s *Stage) noteCut(r *http.Request, refused *intake.Refusal, by string) {
	const text = "a connection was closed while its client was still sending a refused request; the client may not have seen the answer"
	if refused.Reason == reasonUnknown {
		s.logger.Debug(text, "by", by, "client", r.RemoteAddr)
		return
	}
	s.warn(text, "by", by, "status", answers[refused.Reason].status, "reason", label(refused.Reason), "client", r.RemoteAddr)
}

// discard reads the body of a refused request to its end. If it reaches a limit before that, it
// returns the limit, otherwise "".
func (s *Stage) discard(w http.ResponseWriter, body *requestBody, refused intake.Reason) (by string) {
	most, within := max(discardBytes, s.cfg.MaxBodyBytes), discardTime
	waits := body.waits // reading clears it
	switch {
	case refused == reasonUnknown:
		most, within = strangerBytes, strangerTime
	case body.by.try(forDiscard) == entered:
		defer body.by.exit(forDiscard)
	default:
		most, within, by = hastyBytes, hastyTime, cutConnections
	}
	in := readBody(w, body, body.by, within)
	in.budget, in.discarded = &byteBudget{limit: most}, s.discarding
	if waits { // the client sends only if it has not waited
		_ = in.connection.SetReadDeadline(in.began.Add(hastyTime))
	}
	// A stage that stops does not wait for clients that were answered.
	defer context.AfterFunc(s.discarding, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })()
	_, err := io.Copy(io.Discard, stoppable{s.discarding, in})
	switch {
	case err == nil || waits && in.bytes == 0:
		return ""
	case s.discarding.Err() != nil:
		return cutStop
	case by == "" && errors.Is(err, errBodyBudget):
		by = cutBytes
	case by == "" && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errShare)):
		by = cutTime
	case !errors.Is(err, errBodyBudget) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errShare):
		return "" // the client has closed the connection
	}
	return by
}

// stoppable is a body that ends with its context. The context is checked before each
// read, because a bodyReader sets a new deadline after each read, which would undo the
// one that ends it.
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
