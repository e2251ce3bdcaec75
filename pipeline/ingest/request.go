package ingest

import (
	"context"
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/schemas/avro"
)

const (
	mediaAvro = "application/avro"
	mediaJSON = "application/json"
)

func (s *Stage) serveFrames(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time, trace *requestTrace) {
	taken, refused := s.take(w, r, who, began, trace)
	status := http.StatusOK
	if taken.spooled {
		status = http.StatusAccepted
	}
	s.answer(w, r, who, began, trace, status, taken.body(), refused)
}

// taken has the number of accepted frames or events of a request, and those that will be put aside.
type taken struct {
	accepted int // frames that the bus has acknowledged or that are in the spool
	aside    []asideAnswer
	spooled  bool
}

// body returns the body of the answer.
func (t *taken) body() any {
	type accepted struct {
		Accepted int `json:"accepted"`
	}
	if len(t.aside) == 0 {
		return accepted{t.accepted}
	}
	return struct {
		accepted
		Aside []asideAnswer `json:"aside"`
	}{accepted{t.accepted}, t.aside}
}

// take publishes the frames or events of a request, or returns a refusal.
func (s *Stage) take(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time, trace *requestTrace) (taken, *intake.Refusal) {
	of, refused := s.announced(w, r, who, began)
	if refused != nil {
		return taken{}, refused
	}
	by := clientOf(r)
	in := readBody(w, http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes), by, s.cfg.ReadTimeout)
	held := s.frames.lease(r.Context(), by)
	in.held, in.events, in.chunked = held, of.events, r.ContentLength < 0
	published := false
	defer func() {
		if !published {
			held.end()
		}
	}()
	held.yields(in.interrupt)
	body, refused := s.receive(in, r.ContentLength, held)
	if refused != nil {
		in.hangUp(w)
		return taken{}, refused
	}
	waits, cancel := context.WithCancel(r.Context())
	defer cancel()
	held.yields(cancel) // until it is decoded
	place, refused := s.enterLarge(waits, len(body), held)
	if refused != nil {
		return taken{}, refused
	}
	defer place.leave()
	// The request gets a slot only now, so a slow client does not occupy one while it sends.
	if refused := s.enter(waits, held, place); refused != nil {
		return taken{}, refused
	}
	defer by.exit(forFrames)
	of.strict = !of.events && s.strict(w, r.Header)
	b, refused := s.read(waits, r.Header, body, of, held, place, who, trace)
	place.leave()
	if refused != nil {
		return taken{}, refused
	}
	judged := time.Now()
	if refused := s.keepTensors(r.Context(), by, b); refused != nil {
		return taken{}, refused
	}
	held.trim()
	trace.publishes(b)
	published = true
	spooled, refused := s.publish(b, judged, trace, held)
	if refused != nil {
		return taken{}, refused
	}
	return taken{len(b.Messages), asideAnswers(b), spooled}, nil
}

// content says what a request sends, and how.
type content struct {
	events    bool       // otherwise frames
	inflaters *sync.Pool // of the coding; nil: it is not compressed
	mediaType string
	strict    bool // none of its frames may be put aside
}

// announced returns what a request sends, or refuses it before its body is read.
func (s *Stage) announced(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time) (of content, refused *intake.Refusal) {
	of.events = ofEvents(r)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return of, intake.Refuse(reasonMethod, "%ss are sent with POST, not %s", one(of.events), r.Method)
	}
	if refused := lacks(who, access.Frames); refused != nil {
		return of, refused
	}
	if refused := s.clockProblem(r.Header, began); refused != nil {
		return of, refused
	}
	if of.inflaters, refused = s.codings.of(r.Header); refused != nil {
		w.Header().Set("Accept-Encoding", acceptedCodings)
		return of, refused
	}
	if of.mediaType, refused = mediaTypeOf(r.Header); refused != nil {
		w.Header().Set("Accept-Post", mediaAvro+", "+mediaJSON)
		return of, refused
	}
	if r.ContentLength > s.cfg.MaxBodyBytes {
		return of, s.bodyTooLarge(of.events)
	}
	return of, nil
}

// ofEvents reports whether a request sends events, and not frames.
func ofEvents(r *http.Request) bool { return r.URL.Path == eventsPath }

// enter takes a slot for a request whose body was received. If there is none, the request waits
// for up to a second. So clients need not repeat requests that arrive at the same moment, or while
// the bus is slow for a moment. It also means that a client that ignores 429 cannot send more often.
func (s *Stage) enter(ctx context.Context, held *lease, place *place) *intake.Refusal {
	by := held.by
	result := by.try(forFrames)
	if result != entered {
		place.leave() // those that have slots may need it
		result = by.enter(ctx, forFrames, shareWait)
	}
	switch {
	case result == entered && place.take(ctx):
		return nil
	case result == entered:
		by.exit(forFrames)
		return s.noPlace(held, place)
	case held.yielded():
		return s.noMemory(held)
	case result == shareTaken:
		return s.shareTaken()
	}
	return s.overloaded()
}

// shareTaken refuses a request of a client that already uses its whole share.
func (s *Stage) shareTaken() *intake.Refusal {
	return intake.Refuse(reasonShare, "the requests of this client that are in progress use its whole share of ingest (--client-share is %g); this request was refused as a whole; send fewer requests at the same time, and send this one again later", s.cfg.ClientShare).After(time.Second)
}

// timeTaken refuses a request of a client that would have to wait too long for processor time.
func (s *Stage) timeTaken(by *client) *intake.Refusal {
	return intake.Refuse(reasonShare, "this client has used more than its share of the processors (--client-share is %g; less while all are busy), and other clients send, too; this request was refused as a whole; send fewer or smaller requests, and send this one again later", s.cfg.ClientShare).After(min(inSeconds(by.owed()), mostRetry))
}

// mostRetry limits how much later a client is told to send again. When the others have stopped,
// it owes nothing.
const mostRetry = 30 * time.Second

// inSeconds returns whole seconds that are longer than a time, as Retry-After has no fractions.
func inSeconds(t time.Duration) time.Duration { return max(t, 0).Truncate(time.Second) + time.Second }

// overRate refuses a request of a client that sends more than the configured rates allow.
func (s *Stage) overRate(by *client) *intake.Refusal {
	retry, rate := by.overRate()
	switch {
	case retry == 0:
		return nil
	case rate == byteRate:
		return intake.Refuse(reasonShare, "this client has sent more bytes than it may send in a second (%s is %s); this request was refused as a whole; send fewer bytes, for example compressed, and send this request again later", rate, size.Text(s.cfg.ClientBytes)).After(inSeconds(retry))
	}
	return intake.Refuse(reasonShare, "this client has sent more requests than it may send in a second (%s is %d); this request was refused as a whole; send fewer and larger requests, and send this one again later", rate, s.cfg.ClientRequests).After(inSeconds(retry))
}

func (s *Stage) overloaded() *intake.Refusal {
	return intake.Refuse(intake.ReasonOverloaded, "ingest is processing %d requests, which is the maximum (--max-in-flight); this request was refused as a whole; send it again later", cap(s.slots)).After(time.Second)
}

// noMemory refuses a request for which no memory is free.
func (s *Stage) noMemory(held *lease) *intake.Refusal {
	if held.overShare() {
		return s.shareTaken()
	}
	return intake.Refuse(intake.ReasonOverloaded, "the requests in progress use all memory that ingest may use for requests (--max-memory-bytes is %d); this request was refused as a whole; send it again later", s.cfg.MaxMemoryBytes).After(time.Second)
}

// mediaTypeOf returns the media type of the body of a request.
func mediaTypeOf(h http.Header) (string, *intake.Refusal) {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err == nil && (mediaType == mediaAvro || mediaType == mediaJSON) {
		return mediaType, nil
	}
	return "", intake.Refuse(reasonMediaType, "Content-Type is %.64q; send %s (single-object encoding, or an object container file) or %s", h.Get("Content-Type"), mediaAvro, mediaJSON)
}

// read decompresses and decodes a body into records, in memory of held. ctx ends its waits when the
// request ends, or when held is refused.
func (s *Stage) read(ctx context.Context, header http.Header, body []byte, of content, held *lease, place *place, who *access.Identity, trace *requestTrace) (b *intake.Batch, refused *intake.Refusal) {
	work := held.by.work()
	work.ctx, work.held, work.place = ctx, held, place
	switch {
	case work.awaitTurn():
	case held.yielded():
		return nil, s.noMemory(held)
	default:
		return nil, s.shareTaken()
	}
	defer held.by.endTurn()
	work.resume()
	if !work.settle() {
		return nil, s.noPlace(held, place)
	}
	held.lead()
	held.work = work
	defer func() {
		held.work = nil
		work.end(refused)
	}()
	if body, refused = s.inflate(body, of.inflaters, header.Get("Content-Encoding"), held, work, of.events); refused != nil {
		return nil, refused
	}
	registered := !of.events && s.cfg.Registry != nil && of.mediaType == mediaAvro && avro.IsRegistered(body)
	if !registered {
		if refused = sniff(body, of.mediaType, of.events); refused != nil {
			return nil, refused
		}
	}
	b = s.intake.NewBatch()
	b.Path, b.Trace, b.Bytes, b.Memory = s.cfg.Instance, traceOf(header), len(body), held
	b.Permit, b.PermitEvent = trace.observe(permit(who)), permitEvent(who)
	b.Judge, b.Strict = s.judge, of.strict
	if registered {
		b.Schema = s.schemasFor(ctx, work)
	}
	refused = s.decode(body, of, b)
	switch {
	case place.gone():
		refused = s.noPlace(held, place)
	case refused != nil && refused.Reason == intake.ReasonOverloaded || !held.prevails():
		refused = s.noMemory(held)
	}
	return b, refused
}

// decode adds the records of a body to a batch.
func (s *Stage) decode(body []byte, of content, b *intake.Batch) (refused *intake.Refusal) {
	d, _ := s.decoders.Get().(*intake.Decoder)
	switch {
	case of.events && of.mediaType == mediaJSON:
		refused = d.JSONEvents(body, b)
	case of.events:
		refused = intake.AvroEvents(body, b)
	case of.mediaType == mediaJSON:
		refused = d.JSON(body, b)
	case b.Schema != nil:
		refused = d.Registered(body, b)
	default:
		refused = d.Avro(body, b)
	}
	if d.Size() <= pooled {
		s.decoders.Put(d)
	}
	return refused
}

// answer counts and logs the outcome of a request and writes the response: the refusal if there is
// one, and otherwise the body with the status. who is nil if the identity is not known.
func (s *Stage) answer(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time, trace *requestTrace, status int, body any, refused *intake.Refusal) {
	s.metrics.requests.Add(1)
	if refused != nil {
		status = answers[refused.Reason].status
		s.metrics.refused.Add(1)
		s.metrics.rejectedTotal.WithLabelValues(label(refused.Reason)).Inc()
		s.logger.LogAttrs(r.Context(), slog.LevelDebug, "request refused",
			slog.Int("status", status), slog.String("reason", label(refused.Reason)), slog.String("detail", refused.Detail), slog.String("client", r.RemoteAddr), trace.ofLog(r.Header), identityOf(who))
	}
	s.metrics.requestsTotal.WithLabelValues(strconv.Itoa(status)).Inc()
	s.metrics.requestSeconds.Observe(time.Since(began).Seconds())
	defer trace.end(r, status, refused)
	if refused != nil {
		s.refuse(w, r, refused)
		return
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
