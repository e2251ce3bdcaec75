package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Kind is the kind of a span, as OpenTelemetry has it.
type Kind = trace.SpanKind

// The kinds that Oona has.
const (
	Server   = trace.SpanKindServer
	Producer = trace.SpanKindProducer
	Consumer = trace.SpanKindConsumer
)

// Span is a span that has ended.
type Span struct {
	Name       string
	Kind       Kind
	Context    Context // its own
	Parent     SpanID  // zero: it is a root
	Begin, End time.Time
	Attributes []Attribute
	Links      []Link
	Error      string // what went wrong; empty: nothing did
}

// Link refers to another span.
type Link struct {
	To         Context
	Attributes []Attribute
}

// maker makes spans in the form of the SDK. It is a processor of the SDK's provider that
// keeps the spans that end, and an IDGenerator that gives them their own identifiers.
type maker struct {
	tracer trace.Tracer
	next   Context // of the span that is being made
	made   []sdk.ReadOnlySpan
}

// scope is the name of the instrumentation in exported spans.
const scope = "github.com/morphogenetic/oona"

func newMaker(p Process) *maker {
	attributes := []attribute.KeyValue{
		attribute.String("service.name", "oona-"+p.Name),
		attribute.String("service.version", p.Version),
		attribute.String("oona.prefix", p.Prefix),
	}
	if p.Instance != "" {
		attributes = append(attributes, attribute.String("service.instance.id", p.Instance))
	}
	m := new(maker)
	m.tracer = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // Record has decided
		sdk.WithIDGenerator(m),
		sdk.WithResource(resource.NewSchemaless(attributes...)),
		sdk.WithRawSpanLimits(sdk.SpanLimits{AttributeValueLengthLimit: 1024, AttributeCountLimit: 128, EventCountLimit: 128, LinkCountLimit: 128, AttributePerEventCountLimit: 128, AttributePerLinkCountLimit: 128}),
		sdk.WithSpanProcessor(m),
	).Tracer(scope, trace.WithInstrumentationVersion(p.Version))
	return m
}

// make returns spans in the form of the SDK.
func (m *maker) make(spans []Span) []sdk.ReadOnlySpan {
	m.made = make([]sdk.ReadOnlySpan, 0, len(spans))
	for i := range spans {
		m.add(&spans[i])
	}
	return m.made
}

func (m *maker) add(s *Span) {
	ctx := context.Background()
	if s.Parent != (SpanID{}) {
		parent := s.Context
		parent.Span = s.Parent
		ctx = trace.ContextWithRemoteSpanContext(ctx, external(parent))
	}
	m.next = s.Context
	links := make([]trace.Link, 0, len(s.Links))
	for _, l := range s.Links {
		links = append(links, trace.Link{SpanContext: external(l.To), Attributes: valid(l.Attributes)})
	}
	_, made := m.tracer.Start(ctx, text(s.Name), trace.WithSpanKind(s.Kind), trace.WithTimestamp(s.Begin), trace.WithAttributes(valid(s.Attributes)...), trace.WithLinks(links...))
	if !s.Context.Sampled {
		made.SetAttributes(attribute.Bool("oona.sampled", false))
	}
	if s.Error != "" {
		made.SetStatus(codes.Error, text(s.Error))
	}
	made.End(trace.WithTimestamp(s.End))
}

// text returns a text that can be sent. One that is not UTF-8, as in the path of a request,
// cannot be encoded, and all spans of the batch would be dropped.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// valid returns the attributes with texts that can be sent.
func valid(attributes []Attribute) []Attribute {
	all := make([]Attribute, 0, len(attributes))
	for _, a := range attributes {
		a.Key = attribute.Key(text(string(a.Key)))
		switch a.Value.Type() {
		case attribute.STRING:
			a = String(string(a.Key), text(a.Value.AsString()))
		case attribute.STRINGSLICE:
			values := a.Value.AsStringSlice()
			for i := range values {
				values[i] = text(values[i])
			}
			a = attribute.StringSlice(string(a.Key), values)
		}
		all = append(all, a)
	}
	return all
}

// external returns c in the form of the SDK.
func external(c Context) trace.SpanContext {
	flags := trace.TraceFlags(0)
	if c.Sampled {
		flags = trace.FlagsSampled
	}
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(c.Trace), SpanID: trace.SpanID(c.Span), TraceFlags: flags, Remote: true})
}

// NewIDs implements the SDK's IDGenerator.
func (m *maker) NewIDs(context.Context) (trace.TraceID, trace.SpanID) {
	return trace.TraceID(m.next.Trace), trace.SpanID(m.next.Span)
}

// NewSpanID implements the SDK's IDGenerator.
func (m *maker) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	return trace.SpanID(m.next.Span)
}

// OnStart implements the SDK's SpanProcessor.
func (m *maker) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements the SDK's SpanProcessor.
func (m *maker) OnEnd(s sdk.ReadOnlySpan) { m.made = append(m.made, s) }

// Shutdown implements the SDK's SpanProcessor.
func (m *maker) Shutdown(context.Context) error { return nil }

// ForceFlush implements the SDK's SpanProcessor.
func (m *maker) ForceFlush(context.Context) error { return nil }
