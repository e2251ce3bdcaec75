package ingest

import (
	"encoding/json"
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
	accepted, refused := s.take(w, r, began)
	s.answer(w, r, began, http.StatusOK, struct {
		Accepted int `json:"accepted"`
	}{accepted}, refused)
}

// take publishes the frames of a request. It returns the number of frames that the bus
// has acknowledged, or a refusal.
func (s *Stage) take(w http.ResponseWriter, r *http.Request, began time.Time) (int, *refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return 0, refuse(reasonMethod, "frames are sent with POST, not %s", r.Method)
	}
	if refused := s.clockProblem(r.Header, began); refused != nil {
		return 0, refused
	}
	inflaters, refused := s.codings.of(r.Header)
	if refused != nil {
		w.Header().Set("Accept-Encoding", acceptedCodings)
		return 0, refused
	}
	decode, refused := decoderOf(r.Header)
	if refused != nil {
		w.Header().Set("Accept-Post", mediaAvro+", "+mediaJSON)
		return 0, refused
	}
	if r.ContentLength > s.cfg.MaxBodyBytes {
		return 0, s.bodyTooLarge()
	}
	if len(s.slots) == cap(s.slots) {
		return 0, s.overloaded() // before the body is read
	}
	in := readBody(w, http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes), nil, s.cfg.ReadTimeout)
	held := &lease{share: s.frames}
	defer held.end()
	body, refused := s.receive(in, r.ContentLength, held)
	if refused != nil {
		return 0, refused
	}
	// A slow client takes no slot while it sends.
	select {
	case s.slots <- struct{}{}:
	default:
		return 0, s.overloaded()
	}
	defer func() { <-s.slots }()
	b, refused := s.read(r.Header, body, inflaters, decode, held)
	if refused != nil {
		return 0, refused
	}
	if refused := s.keepTensors(r.Context(), b); refused != nil {
		return 0, refused
	}
	held.trim()
	return len(b.messages), s.publish(b)
}

func (s *Stage) overloaded() *refusal {
	return refuse(reasonOverloaded, "%d requests are being processed, which is the maximum (--max-in-flight); nothing of this one was taken; send it again later", cap(s.slots)).after(time.Second)
}

// decoderOf returns the decoder for the body of a request.
func decoderOf(h http.Header) (decodeFunc, *refusal) {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err == nil && mediaType == mediaAvro:
		return (*decoders).avroFrames, nil
	case err == nil && mediaType == mediaJSON:
		return (*decoders).jsonFrames, nil
	}
	return nil, refuse(reasonMediaType, "Content-Type is %.64q; send %s (single-object encoding, or an object container file) or %s", h.Get("Content-Type"), mediaAvro, mediaJSON)
}

// read decompresses and decodes a body into records, in memory of held.
func (s *Stage) read(h http.Header, body []byte, inflaters *sync.Pool, decode decodeFunc, held *lease) (*batch, *refusal) {
	body, refused := s.inflate(body, inflaters, h.Get("Content-Encoding"), held)
	if refused != nil {
		return nil, refused
	}
	d, _ := s.decoders.Get().(*decoders)
	b := &batch{cfg: &s.cfg, path: s.cfg.Instance, trace: traceOf(h), bytes: len(body), held: held}
	refused = decode(d, body, b)
	held.shrink(b.decoders)
	if d.size() <= pooled {
		s.decoders.Put(d)
	}
	return b, refused
}

// answer counts and logs the outcome of a request and writes the response: the refusal
// if there is one, otherwise the body with the status.
func (s *Stage) answer(w http.ResponseWriter, r *http.Request, began time.Time, status int, body any, refused *refusal) {
	s.metrics.requests.Add(1)
	if refused != nil {
		status = statusOf(refused)
		s.metrics.refused.Add(1)
		s.metrics.rejectedTotal.WithLabelValues(string(refused.reason)).Inc()
		s.logger.LogAttrs(r.Context(), slog.LevelDebug, "request refused",
			slog.Int("status", status), slog.String("reason", string(refused.reason)), slog.String("detail", refused.detail), slog.String("client", r.RemoteAddr))
	}
	s.metrics.requestsTotal.WithLabelValues(strconv.Itoa(status)).Inc()
	s.metrics.requestSeconds.Observe(time.Since(began).Seconds())
	if refused != nil {
		s.refuse(w, r, refused)
		return
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
