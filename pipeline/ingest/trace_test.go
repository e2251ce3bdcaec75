package ingest

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/internal/tracing/tracingtest"
)

const clientTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func traced(t *testing.T, onBus *testBus, ratio float64) (*Stage, *tracingtest.Recorder) {
	t.Helper()
	r := tracingtest.New(t, ratio)
	return newStage(t, onBus, func(c *Config) { c.Tracer = r.Tracer }), r
}

// byName returns the one span of each name.
func byName(t *testing.T, spans []tracetest.SpanStub) map[string]tracetest.SpanStub {
	t.Helper()
	out := make(map[string]tracetest.SpanStub)
	for _, s := range spans {
		if _, twice := out[s.Name]; twice {
			t.Errorf("there are two spans %q", s.Name)
		}
		out[s.Name] = s
	}
	return out
}

func TestSpansOfARequest(t *testing.T) {
	onBus := newBus(t)
	s, recorder := traced(t, onBus, 0) // the client's flag decides
	w := post(s, mediaAvro, frames(nil, func(f *oona.Frame) { f.Layer = "enc.2" }, nil), "traceparent", clientTrace)
	if w.Code != http.StatusOK {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	_, messages := onBus.published(t)
	spans := byName(t, recorder.Spans())
	server, send := spans["POST /v1/frames"], spans["send "+rawTopics.SeedMetrics]
	client, _ := tracing.Parse(clientTrace)
	if len(spans) != 2 || server.SpanKind != trace.SpanKindServer || send.SpanKind != trace.SpanKindProducer {
		t.Fatalf("spans are %v", spans)
	}
	if server.SpanContext.TraceID() != trace.TraceID(client.Trace) || server.Parent.SpanID() != trace.SpanID(client.Span) {
		t.Errorf("the parent of the request's span is %v", server.Parent)
	}
	if send.SpanContext.TraceID() != server.SpanContext.TraceID() || send.Parent.SpanID() != server.SpanContext.SpanID() {
		t.Errorf("the parent of the send span is %v", send.Parent)
	}
	for _, m := range messages {
		got, ok := tracing.Parse(m.Metadata.Get("traceparent"))
		if !ok || !got.Sampled || trace.SpanID(got.Span) != send.SpanContext.SpanID() || got.Trace != client.Trace {
			t.Errorf("the frame's header is %q", m.Metadata.Get("traceparent"))
		}
	}
	for span, want := range map[string]map[string]string{
		"POST /v1/frames": {
			"http.request.method": "POST", "http.route": "/v1/frames", "http.response.status_code": "200",
			"oona.run": "digits", "oona.layer": `["enc.1","enc.2"]`, "oona.frames": "3",
		},
		"send " + rawTopics.SeedMetrics: {
			"messaging.system": "kafka", "messaging.operation.name": "send", "messaging.operation.type": "send",
			"messaging.destination.name": rawTopics.SeedMetrics, "messaging.batch.message_count": "3",
			"oona.run": "digits", "oona.layer": `["enc.1","enc.2"]`,
		},
	} {
		got := tracingtest.Attributes(spans[span].Attributes)
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", span, key, got[key], value)
			}
		}
	}
}

func TestHeadSampling(t *testing.T) {
	const unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for _, tt := range []struct {
		name    string
		ratio   float64
		headers []string
		want    int
	}{
		{"the client says yes", 0, []string{"traceparent", clientTrace}, 2},
		{"the client says no", 1, []string{"traceparent", unsampled}, 0},
		{"the ratio takes all", 1, nil, 2},
		{"the ratio takes none", 0, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBus := newBus(t)
			s, recorder := traced(t, onBus, tt.ratio)
			if w := post(s, mediaAvro, frames(nil), tt.headers...); w.Code != http.StatusOK {
				t.Fatalf("answered %d %s", w.Code, w.Body)
			}
			if spans := recorder.Spans(); len(spans) != tt.want {
				t.Errorf("%d spans, want %d", len(spans), tt.want)
			}
			_, messages := onBus.published(t)
			c, ok := tracing.Parse(messages[0].Metadata.Get("traceparent"))
			if !ok || c.Sampled != (tt.want > 0) {
				t.Errorf("the frame's header is %q", messages[0].Metadata.Get("traceparent"))
			}
		})
	}
}

// Log lines about a request have its trace, also that of a client if there is no tracer.
func TestLogsHaveTraces(t *testing.T) {
	client, _ := tracing.Parse(clientTrace)
	for name, ratio := range map[string]float64{"with a tracer": 1, "without": -1} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			onBus := newBus(t)
			onBus.before = func(string, []*message.Message) error { return errors.New("the bus does not answer") }
			s := newStage(t, onBus, func(c *Config) {
				if ratio >= 0 {
					c.Tracer = tracingtest.New(t, ratio).Tracer
				}
			})
			s.logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			post(s, mediaAvro, frames(nil), "traceparent", clientTrace)
			if n := strings.Count(log.String(), "trace_id="+client.Trace.String()); n != 2 {
				t.Errorf("%d lines have the trace, want those about the publishing and the answer: %s", n, &log)
			}
			log.Reset()
			post(s, mediaAvro, []byte("nonsense"))
			if ratio < 0 && strings.Contains(log.String(), "trace_id") {
				t.Errorf("a line has a trace that does not exist: %s", &log)
			}
		})
	}
}

// Spans that end in an error are sent even if they are not sampled, and say so.
func TestSpansOfErrors(t *testing.T) {
	onBus := newBus(t)
	onBus.before = func(string, []*message.Message) error { return errors.New("the bus does not answer") }
	s, recorder := traced(t, onBus, 0)
	if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusServiceUnavailable {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	post(s, mediaAvro, []byte("nonsense")) // the client's fault is no error of the server
	spans := byName(t, recorder.Spans())
	if len(spans) != 2 {
		t.Fatalf("spans are %v", spans)
	}
	for name, span := range spans {
		if span.Status.Code != codes.Error || tracingtest.Attributes(span.Attributes)["oona.sampled"] != "false" {
			t.Errorf("%s: status %v, attributes %v", name, span.Status, span.Attributes)
		}
	}
}

// What a record of the raw topic brought stays the context of its frames, and is linked by
// the span of publishing. Frames of other records get the context of that span.
func TestSpanOfARawBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := tracingtest.New(t, 0)
		onBus := newBus(t)
		raw := startRaw(t, onBus, func(c *Config) { c.Tracer = recorder.Tracer })
		raw.send(string(frames(nil)), "traceparent", clientTrace)
		raw.send(string(frames(func(f *oona.Frame) { f.Layer = "enc.2" })))
		synctest.Wait()
		raw.end()
		client, _ := tracing.Parse(clientTrace)
		_, messages := onBus.published(t)
		spans := recorder.Spans()
		if len(messages) != 2 || len(spans) == 0 {
			t.Fatalf("%d frames, spans %v", len(messages), spans)
		}
		if got := messages[0].Metadata.Get("traceparent"); got != clientTrace {
			t.Errorf("the header of the traced record became %q", got)
		}
		send := spans[0]
		if send.Name != "send "+rawTopics.SeedMetrics || send.SpanKind != trace.SpanKindProducer || send.Parent.IsValid() {
			t.Errorf("the span is %v", send)
		}
		if len(send.Links) != 1 || send.Links[0].SpanContext.TraceID() != trace.TraceID(client.Trace) || send.Links[0].SpanContext.SpanID() != trace.SpanID(client.Span) {
			t.Errorf("the span links %v", send.Links)
		}
		if got := tracingtest.Attributes(send.Attributes); got["oona.run"] != "digits" || got["oona.layer"] == "" {
			t.Errorf("the span has %v", got)
		}
		// The second record came while the first one was published, or with it.
		own, ok := tracing.Parse(messages[1].Metadata.Get("traceparent"))
		if !ok || own.Trace == client.Trace {
			t.Errorf("the header of the other record is %q", messages[1].Metadata.Get("traceparent"))
		}
	})
}

// A record whose client wants a trace is published together with one of another client: the
// span of the batch is sent, and the other client's frames are not sampled by it.
func TestOneClientDoesNotSampleOthers(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	s := newStage(t, newBus(t), func(c *Config) { c.Tracer = recorder.Tracer })
	record := func(header string) *rawRecord {
		r := &rawRecord{frames: s.intake.NewBatch()}
		r.frames.Messages = []*message.Message{message.NewMessage("", nil)}
		r.notes.frames.add(goodFrame(1))
		r.notes.client, _ = tracing.Parse(header)
		return r
	}
	traced, other := record(clientTrace), record("")
	s.traceBatch([]*rawRecord{traced, other}).published(rawTopics.SeedMetrics, nil)
	if n := len(recorder.Spans()); n != 1 {
		t.Errorf("%d spans, want 1", n)
	}
	if c, ok := tracing.Parse(other.frames.Messages[0].Metadata.Get(oona.HeaderTraceparent)); !ok || c.Sampled {
		t.Errorf("the header of the other client's frame is %s, %v", c, ok)
	}
}

// Without a tracer, requests and records allocate nothing for traces: the hooks of a trace
// are not called.
func TestNoTracerNoTrace(t *testing.T) {
	s := newStage(t, &acknowledging{}, nil)
	if s.trace(httptest.NewRequest(http.MethodPost, "/v1/frames", nil), time.Now()) != nil || s.traceBatch(nil) != nil {
		t.Error("there is a trace without a tracer")
	}
	var none *requestTrace
	var notes rawNotes
	if none.observe(nil) != nil || notes.observe(nil) != nil {
		t.Error("frames are looked at without a tracer")
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/frames", nil)
	if n := testing.AllocsPerRun(100, func() {
		trace := s.trace(r, time.Time{})
		trace.observe(nil)
		trace.publishes(nil)
		trace.published("", time.Time{}, nil)
		trace.end(r, http.StatusOK, nil)
	}); n != 0 {
		t.Errorf("%v allocations a request without a tracer", n)
	}
}

// Clients choose methods and paths. The names of spans are a fixed set nevertheless, and
// the attributes are short.
func TestSpansOfStrangeRequests(t *testing.T) {
	s, recorder := traced(t, newBus(t), 1)
	r := httptest.NewRequest("BREW", "/"+strings.Repeat("x", 10_000), nil)
	s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	spans := recorder.Spans()
	if len(spans) != 1 || spans[0].Name != "HTTP" {
		t.Fatalf("spans are %v", spans)
	}
	got := tracingtest.Attributes(spans[0].Attributes)
	if got["http.request.method"] != "_OTHER" || len(got["url.path"]) != mostPath {
		t.Errorf("the span has %v", got)
	}
}

// A client that is not known gets no spans, not even with a header that asks for them.
func TestStrangersAreNotTraced(t *testing.T) {
	recorder := tracingtest.New(t, 1)
	s := newStage(t, newBus(t), func(c *Config) { c.Tracer, c.Access = recorder.Tracer, newGate(t) })
	if w := post(s, mediaAvro, frames(nil), "traceparent", clientTrace); w.Code != http.StatusUnauthorized {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	if spans := recorder.Spans(); len(spans) != 0 {
		t.Errorf("spans are %v", spans)
	}
}
