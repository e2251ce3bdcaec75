package ingest

import (
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
)

const (
	mediaAvro = "application/avro"
	mediaJSON = "application/json"
)

func (s *Stage) serveFrames(w http.ResponseWriter, r *http.Request, who *access.Identity) {
	began := time.Now()
	accepted, refused := s.take(w, r, who, began)
	s.answer(w, r, began, http.StatusOK, struct {
		Accepted int `json:"accepted"`
	}{accepted}, refused)
}

// take publishes the frames of a request. It returns the number of frames that the bus
// has acknowledged, or a refusal.
func (s *Stage) take(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time) (int, *intake.Refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return 0, intake.Refuse(reasonMethod, "frames are sent with POST, not %s", r.Method)
	}
	if refused := lacks(who, access.Frames); refused != nil {
		return 0, refused
	}
	if refused := s.clockProblem(r.Header, began); refused != nil {
		return 0, refused
	}
	inflaters, refused := s.codings.of(r.Header)
	if refused != nil {
		w.Header().Set("Accept-Encoding", acceptedCodings)
		return 0, refused
	}
	mediaType, refused := mediaTypeOf(r.Header)
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
	b, refused := s.read(r.Header, body, inflaters, mediaType, held, permit(who))
	if refused != nil {
		return 0, refused
	}
	if refused := s.keepTensors(r.Context(), b); refused != nil {
		return 0, refused
	}
	held.trim()
	return len(b.Messages), s.publish(b)
}

func (s *Stage) overloaded() *intake.Refusal {
	return intake.Refuse(intake.ReasonOverloaded, "%d requests are being processed, which is the maximum (--max-in-flight); nothing of this one was taken; send it again later", cap(s.slots)).After(time.Second)
}

// noMemory refuses a request for which no memory is free.
func (s *Stage) noMemory() *intake.Refusal {
	return intake.Refuse(intake.ReasonOverloaded, "requests that are being processed use all memory for requests (--max-memory-bytes is %d); nothing of this one was taken; send it again later", s.cfg.MaxMemoryBytes).After(time.Second)
}

// mediaTypeOf returns the media type of the body of a request.
func mediaTypeOf(h http.Header) (string, *intake.Refusal) {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err == nil && (mediaType == mediaAvro || mediaType == mediaJSON) {
		return mediaType, nil
	}
	return "", intake.Refuse(reasonMediaType, "Content-Type is %.64q; send %s (single-object encoding, or an object container file) or %s", h.Get("Content-Type"), mediaAvro, mediaJSON)
}

// read decompresses and decodes a body into records, in memory of held.
func (s *Stage) read(h http.Header, body []byte, inflaters *sync.Pool, mediaType string, held *lease, permit func(*oona.Frame) *intake.Refusal) (*intake.Batch, *intake.Refusal) {
	body, refused := s.inflate(body, inflaters, h.Get("Content-Encoding"), held)
	if refused != nil {
		return nil, refused
	}
	if refused := sniff(body, mediaType); refused != nil {
		return nil, refused
	}
	d, _ := s.decoders.Get().(*intake.Decoder)
	b := s.intake.NewBatch()
	b.Path, b.Trace, b.Bytes, b.Memory, b.Permit = s.cfg.Instance, traceOf(h), len(body), held, permit
	if mediaType == mediaJSON {
		refused = d.JSON(body, b)
	} else {
		refused = d.Avro(body, b)
	}
	if d.Size() <= pooled {
		s.decoders.Put(d)
	}
	if refused != nil && refused.Reason == intake.ReasonOverloaded {
		refused = s.noMemory()
	}
	return b, refused
}

// answer counts and logs the outcome of a request and writes the response: the refusal
// if there is one, otherwise the body with the status.
func (s *Stage) answer(w http.ResponseWriter, r *http.Request, began time.Time, status int, body any, refused *intake.Refusal) {
	s.metrics.requests.Add(1)
	if refused != nil {
		status = answers[refused.Reason].status
		s.metrics.refused.Add(1)
		s.metrics.rejectedTotal.WithLabelValues(label(refused.Reason)).Inc()
		s.logger.LogAttrs(r.Context(), slog.LevelDebug, "request refused",
			slog.Int("status", status), slog.String("reason", label(refused.Reason)), slog.String("detail", refused.Detail), slog.String("client", r.RemoteAddr))
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
