package ingest

import (
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	mediaAvro = "application/avro"
	mediaJSON = "application/json"
)

func (s *Stage) serveFrames(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	accepted, refusal := s.take(w, r, began)
	s.answer(w, r, began, http.StatusOK, struct {
		Accepted int `json:"accepted"`
	}{accepted}, refusal)
}

// take does what a request asks for. It returns the number of frames that the
// bus has acknowledged, or why the request is refused.
func (s *Stage) take(w http.ResponseWriter, r *http.Request, began time.Time) (int, *problem) {
	if r.Method != http.MethodPost {
		return 0, newProblem(http.StatusMethodNotAllowed, reasonMethod, "frames are taken by POST, not %s", r.Method).with("Allow", http.MethodPost)
	}
	if refusal := s.clockProblem(r.Header, began); refusal != nil {
		return 0, refusal
	}
	inflaters, refusal := s.codings.of(r.Header)
	if refusal != nil {
		return 0, refusal
	}
	decode, refusal := decoderOf(r.Header)
	if refusal != nil {
		return 0, refusal
	}
	if r.ContentLength > s.cfg.MaxBodyBytes {
		return 0, s.bodyTooLarge()
	}
	if len(s.slots) == cap(s.slots) {
		return 0, s.overloaded() // before it is read
	}
	in := readBody(w, http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes), nil, s.cfg.ReadTimeout)
	held := &lease{share: s.frames}
	release := held.end
	published := false
	defer func() {
		if !published {
			release()
		}
	}()
	body, refusal := s.receive(in, r.ContentLength, held)
	if refusal != nil {
		return 0, refusal
	}
	// Not before: a slow client would hold it.
	select {
	case s.slots <- struct{}{}:
	default:
		return 0, s.overloaded()
	}
	release = func() { held.end(); <-s.slots }
	b, refusal := s.read(r.Header, body, inflaters, decode, held)
	if refusal != nil {
		return 0, refusal
	}
	if refusal := s.keepTensors(r.Context(), b); refusal != nil {
		return 0, refusal
	}
	held.trim()
	published = true
	return len(b.messages), s.publish(b, release)
}

func (s *Stage) overloaded() *problem {
	return newProblem(http.StatusTooManyRequests, reasonOverloaded, "%d requests are in flight, which is the most; nothing of this one was taken, send it again later", cap(s.slots)).retryAfter(1)
}

// memoryProblem refuses a request for which there is no memory now.
func (s *Stage) memoryProblem() *problem {
	return newProblem(http.StatusTooManyRequests, reasonOverloaded, "requests in hand use the memory that they may (--max-memory-bytes, %d); nothing of this one was taken, send it again later", s.memory.total).retryAfter(1)
}

// decoderOf chooses the decoder of a body.
func decoderOf(h http.Header) (decodeFunc, *problem) {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err == nil && mediaType == mediaAvro:
		return (*decoders).avroFrames, nil
	case err == nil && mediaType == mediaJSON:
		return (*decoders).jsonFrames, nil
	}
	return nil, newProblem(http.StatusUnsupportedMediaType, reasonMediaType, "Content-Type is %.64q; send %s (single-object encoding, or an object container file) or %s", h.Get("Content-Type"), mediaAvro, mediaJSON).
		with("Accept-Post", mediaAvro+", "+mediaJSON)
}

// read makes records of the frames in a body. Its memory is held's.
func (s *Stage) read(h http.Header, body []byte, inflaters *sync.Pool, decode decodeFunc, held *lease) (*batch, *problem) {
	body, refusal := s.inflate(body, inflaters, h.Get("Content-Encoding"), held)
	if refusal != nil {
		return nil, refusal
	}
	d, _ := s.decoders.Get().(*decoders)
	b := &batch{cfg: &s.cfg, path: s.cfg.Instance, trace: traceOf(h), bytes: len(body), held: held}
	refusal = decode(d, body, b)
	held.shrink(b.decoders)
	if d.size() <= pooled {
		s.decoders.Put(d)
	}
	if refusal == nil {
		return b, nil
	}
	if refusal.reason == reasonOverloaded {
		refusal = s.memoryProblem()
	}
	return nil, refusal
}

// answer writes the response, and what is to be known of it: the body with its
// status, or the refusal where there is one.
func (s *Stage) answer(w http.ResponseWriter, r *http.Request, began time.Time, status int, body any, refusal *problem) {
	s.metrics.requests.Add(1)
	if refusal != nil {
		status = refusal.Status
		s.metrics.refused.Add(1)
		s.metrics.rejectedTotal.WithLabelValues(string(refusal.reason)).Inc()
		s.logger.LogAttrs(r.Context(), slog.LevelDebug, "request refused",
			slog.Int("status", status), slog.String("reason", string(refusal.reason)), slog.String("detail", refusal.Detail), slog.String("client", r.RemoteAddr))
	}
	s.metrics.requestsTotal.WithLabelValues(strconv.Itoa(status)).Inc()
	s.metrics.requestSeconds.Observe(time.Since(began).Seconds())
	if refusal != nil {
		s.refuse(w, r, refusal)
		return
	}
	writeJSON(w, status, mediaJSON, body)
}
