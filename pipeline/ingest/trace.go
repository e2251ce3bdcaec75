package ingest

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/tracing"
)

// traceOf returns the trace context of a request, or "" if it does not have exactly
// one, or it is not valid (W3C Trace Context, section 3.2.2).
func traceOf(h http.Header) string {
	values := h.Values(oona.HeaderTraceparent)
	if len(values) != 1 || !validTraceParent(values[0]) {
		return ""
	}
	return values[0]
}

func validTraceParent(s string) bool {
	_, ok := tracing.Parse(s)
	return ok
}

// requestTrace makes the span of a request and, if frames or events are published, the span of
// publishing. A nil *requestTrace does nothing; the stage then has no tracer.
type requestTrace struct {
	tracer *tracing.Tracer
	began  time.Time
	client tracing.Context // trace context of the request; zero if it has none
	server tracing.Context // zero until it is decided whether the request is sampled
	send   sendTrace
}

// trace begins to trace a request.
func (s *Stage) trace(r *http.Request, began time.Time) *requestTrace {
	if s.cfg.Tracer == nil {
		return nil
	}
	t := &requestTrace{tracer: s.cfg.Tracer, began: began}
	t.client, _ = tracing.Parse(traceOf(r.Header))
	return t
}

// observe returns a function that notes each valid frame, and then calls permit, which may be nil.
func (t *requestTrace) observe(permit func(*oona.Frame) *intake.Refusal) func(*oona.Frame) *intake.Refusal {
	if t == nil {
		return permit
	}
	return func(f *oona.Frame) *intake.Refusal {
		t.send.frames.add(f)
		if permit == nil {
			return nil
		}
		return permit(f)
	}
}

// decide decides whether the request is sampled. If the client has a trace context, that decides,
// and otherwise the identity of the first frame.
func (t *requestTrace) decide() {
	switch first := &t.send.frames; {
	case t.client.Valid():
		t.server = t.client.Child()
	case first.count > 0:
		t.server = tracing.NewTrace(t.tracer.Sampler.Frame(string(first.producer), first.epoch, first.sequence))
	default:
		t.server = tracing.NewTrace(false)
		t.server.Sampled = t.tracer.Sampler.Trace(t.server.Trace)
	}
}

// publishes gives the messages of the batch the context of the span of publishing.
func (t *requestTrace) publishes(b *intake.Batch) {
	if t == nil {
		return
	}
	t.decide()
	t.send.context, t.send.parent = t.server.Child(), t.server.Span
	b.Trace = t.send.context.String()
	for _, m := range b.Messages {
		m.Metadata.Set(oona.HeaderTraceparent, b.Trace)
	}
}

// published records the span of publishing.
func (t *requestTrace) published(topic string, began time.Time, err error) {
	if t != nil {
		t.send.record(t.tracer, topic, began, err)
	}
}

// end records the span of the request.
func (t *requestTrace) end(r *http.Request, status int, refused *intake.Refusal) {
	if t == nil {
		return
	}
	if !t.server.Valid() {
		t.decide()
	}
	failed := ""
	if refused != nil && status >= http.StatusInternalServerError {
		failed = refused.Detail
	}
	if !t.server.Sampled && failed == "" {
		return
	}
	name, method := methodOf(r)
	attributes := []tracing.Attribute{
		tracing.String("http.request.method", method),
		tracing.String("url.path", strings.Clone(r.URL.Path[:min(len(r.URL.Path), mostPath)])),
		tracing.Int("http.response.status_code", int64(status)),
		tracing.String("client.address", r.RemoteAddr),
	}
	if r.URL.Path == framesPath || r.URL.Path == eventsPath || r.URL.Path == tensorsPath {
		name += " " + r.URL.Path
		attributes = append(attributes, tracing.String("http.route", r.URL.Path))
	}
	if refused != nil {
		attributes = append(attributes, tracing.String("error.type", label(refused.Reason)))
	}
	t.tracer.Record(tracing.Span{
		Name: name, Kind: tracing.Server, Context: t.server, Parent: t.client.Span, Begin: t.began, End: time.Now(),
		Attributes: append(attributes, t.send.frames.attributes()...), Error: failed,
	})
}

// mostPath limits the bytes of a path in the span of a request, because many spans may wait.
const mostPath = 256

// methodOf returns the name and the method for the span of a request, by the semantic conventions.
// Unknown methods are replaced, because backends keep lists of the names of spans, and clients
// could invent any number of them.
func methodOf(r *http.Request) (name, method string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method, r.Method
	}
	return "HTTP", "_OTHER"
}

// sendTrace makes the span of a batch that is published.
type sendTrace struct {
	context tracing.Context
	parent  tracing.SpanID // zero for a root span
	links   []tracing.Link
	frames  frameNotes
}

func (t *sendTrace) record(tracer *tracing.Tracer, topic string, began time.Time, err error) {
	failed := ""
	if err != nil {
		failed = err.Error()
	}
	if !t.context.Sampled && failed == "" {
		return
	}
	tracer.Record(tracing.Span{
		Name: "send " + topic, Kind: tracing.Producer, Context: t.context, Parent: t.parent, Begin: began, End: time.Now(),
		Attributes: append(t.frames.attributes(),
			tracing.String("messaging.system", "kafka"),
			tracing.String("messaging.operation.name", "send"),
			tracing.String("messaging.operation.type", "send"),
			tracing.String("messaging.destination.name", topic),
			tracing.Int("messaging.batch.message_count", int64(t.frames.count)),
		),
		Links: t.links, Error: failed,
	})
}

// mostNames limits the runs and the layers in the attributes of a span.
const mostNames = 32

// frameNotes has the attributes of spans about the frames of a batch.
type frameNotes struct {
	count           int
	producer        oona.ProducerID // with epoch and sequence, the identity of the first frame
	epoch, sequence int64
	runs, layers    []string // distinct names, up to mostNames of each
	earliest        oona.Micros
	latest          oona.Micros
}

func (n *frameNotes) add(f *oona.Frame) {
	if n.count == 0 {
		n.producer, n.epoch, n.sequence = f.Producer, int64(f.Epoch), f.Sequence
		n.earliest, n.latest = f.ObservedAt, f.ObservedAt
	}
	n.count++
	n.earliest, n.latest = min(n.earliest, f.ObservedAt), max(n.latest, f.ObservedAt)
	n.runs, n.layers = with(n.runs, string(f.Run)), with(n.layers, string(f.Layer))
}

// with adds a name to a short list unless it is there, or the list is full.
func with(names []string, name string) []string {
	if len(names) == mostNames || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// attributes returns the attributes of the frames. Their windows are not known yet, so the
// attributes have the event times.
func (n *frameNotes) attributes() []tracing.Attribute {
	if n.count == 0 {
		return nil
	}
	return []tracing.Attribute{
		tracing.Int("oona.frames", int64(n.count)),
		tracing.Strings("oona.run", n.runs),
		tracing.Strings("oona.layer", n.layers),
		tracing.String("oona.observed.first", tracing.Instant(n.earliest)),
		tracing.String("oona.observed.last", tracing.Instant(n.latest)),
	}
}

// traceOfLog returns the trace ID for a log line, or nothing if there is no trace.
func traceOfLog(traceparent string) slog.Attr {
	c, ok := tracing.Parse(traceparent)
	if !ok {
		return slog.Attr{}
	}
	return slog.String("trace_id", c.Trace.String())
}

// ofLog returns the trace ID of a request for a log line. A request may have one even if the stage
// has no tracer.
func (t *requestTrace) ofLog(h http.Header) slog.Attr {
	if t != nil && t.server.Valid() {
		return slog.String("trace_id", t.server.Trace.String())
	}
	return traceOfLog(traceOf(h))
}

// mostLinks limits the links from the span of a batch of the raw topic to spans of clients.
const mostLinks = 32

// rawTrace makes the span of publishing a batch of records of the raw topic. If a record has a
// trace context, its frames keep it, and the span has a link to it. The other frames get the
// context of this span. A nil *rawTrace does nothing.
type rawTrace struct {
	tracer *tracing.Tracer
	began  time.Time
	send   sendTrace
}

// rawNotes has the attributes of the span of a batch about one record.
type rawNotes struct {
	client tracing.Context // trace context of the record; zero if it has none
	frames frameNotes
}

// observe returns a function that notes the frames of a record, or nil if there is no tracer.
func (n *rawNotes) observe(tracer *tracing.Tracer) func(*oona.Frame) *intake.Refusal {
	if tracer == nil {
		return nil
	}
	return func(f *oona.Frame) *intake.Refusal {
		n.frames.add(f)
		return nil
	}
}

// traceBatch begins to trace records that are published together.
func (s *sink) traceBatch(records []*rawRecord) *rawTrace {
	if s.cfg.Tracer == nil {
		return nil
	}
	t := &rawTrace{tracer: s.cfg.Tracer, began: time.Now()}
	sampled, untraced := false, (*frameNotes)(nil)
	for _, r := range records {
		if len(r.messages()) == 0 {
			continue
		}
		t.send.frames.merge(&r.notes.frames)
		switch c := r.notes.client; {
		case !c.Valid():
			if untraced == nil {
				untraced = &r.notes.frames
			}
		case c.Sampled:
			sampled = true
			if len(t.send.links) < mostLinks {
				t.send.links = append(t.send.links, tracing.Link{To: c, Attributes: []tracing.Attribute{tracing.Int("messaging.kafka.offset", r.at.Offset)}})
			}
		}
	}
	// If a client has its own frames traced, this must not decide about the frames of others.
	own := untraced != nil && t.tracer.Sampler.Frame(string(untraced.producer), untraced.epoch, untraced.sequence)
	t.send.context = tracing.NewTrace(own)
	header := t.send.context.String()
	t.send.context.Sampled = own || sampled
	for _, r := range records {
		if r.notes.client.Valid() {
			continue
		}
		for _, m := range r.messages() {
			m.Metadata.Set(oona.HeaderTraceparent, header)
		}
	}
	return t
}

// published records the span of the batch, after all attempts.
func (t *rawTrace) published(topic string, err error) {
	if t != nil && t.send.frames.count > 0 {
		t.send.record(t.tracer, topic, t.began, err)
	}
}

// merge adds the notes of other frames.
func (n *frameNotes) merge(o *frameNotes) {
	if o.count == 0 {
		return
	}
	if n.count == 0 {
		n.producer, n.epoch, n.sequence = o.producer, o.epoch, o.sequence
		n.earliest, n.latest = o.earliest, o.latest
	}
	n.count += o.count
	n.earliest, n.latest = min(n.earliest, o.earliest), max(n.latest, o.latest)
	for _, run := range o.runs {
		n.runs = with(n.runs, run)
	}
	for _, layer := range o.layers {
		n.layers = with(n.layers, layer)
	}
}
