package export_test

import (
	"context"
	"math"
	"strconv"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/internal/tracing/tracingtest"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

func traced(r *tracingtest.Recorder) func(*export.Config) {
	return func(c *export.Config) { c.Tracer = r.Tracer }
}

// sendTraced appends a rollup whose record has a trace context.
func (f *fixture) sendTraced(r *oona.Rollup, of tracing.Context) {
	f.t.Helper()
	last := f.trigger[r.Group]
	r.Trigger = oona.Trigger{Offset: last.Offset + 1}
	r.Start -= oona.Micros(r.Trigger.Offset) // no window closes twice
	f.trigger[r.Group] = r.Trigger
	r.Hash = r.ContentHash()
	f.appendTraced(r, of)
}

func (f *fixture) appendTraced(r *oona.Rollup, of tracing.Context) {
	f.t.Helper()
	msg := bus.NewMessage(avro.AppendRollup(nil, r), bus.Target{Directed: true})
	if of.Valid() {
		msg.Metadata.Set(oona.HeaderTraceparent, of.String())
	}
	if err := f.tape.publisher.Publish(context.Background(), topics.Rollup(r.Group), msg); err != nil {
		f.t.Fatal(err)
	}
	f.tape.read(f.t)
}

func gradient(worst oona.SeedID, value float64) oona.MetricSummary {
	m := summarize("gradient_norm", 0.5, 1, value)
	m.Worst = []oona.SeedValue{{Seed: worst, Value: value, Offset: 7}, {Seed: 1, Value: 1, Offset: 6}}
	return m
}

func labels(list []*dto.LabelPair) map[string]string {
	out := make(map[string]string)
	for _, l := range list {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

func TestExportSpan(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, traced(recorder))
	window := tracing.NewTrace(true)
	r := rollup(oona.Health, "r", "a", gradient(17, 40))
	f.sendTraced(r, window)
	f.appendTraced(r, window) // a repeat
	f.sendTraced(rollup(oona.Health, "r", "a", gradient(17, 40)), tracing.NewTrace(false))
	f.sendTraced(rollup(oona.Health, "r", "a", gradient(17, 40)), tracing.Context{})
	spans := recorder.Spans()
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1: %v", len(spans), spans)
	}
	s := spans[0]
	if s.Name != "process "+topics.LayerHealth || s.SpanKind != trace.SpanKindConsumer ||
		s.SpanContext.TraceID() != trace.TraceID(window.Trace) || s.Parent.SpanID() != trace.SpanID(window.Span) {
		t.Errorf("the span is %+v", s)
	}
	got := tracingtest.Attributes(s.Attributes)
	for key, want := range map[string]string{
		"oona.run": "r", "oona.layer": "a", "oona.window.end": tracing.Instant(r.End), "oona.window.start": tracing.Instant(r.Start),
		"messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.destination.name": topics.LayerHealth, "messaging.destination.partition.id": "0", "messaging.kafka.offset": "0",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

// A rollup that is dropped, unless it is a repeat, has a span even if its window has none.
func TestSpanOfADroppedRollup(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, traced(recorder))
	r := rollup(oona.Health, "r", "a", gradient(17, 40))
	f.sendTraced(r, tracing.Context{})
	window := tracing.NewTrace(false)
	r.Frames++
	r.Hash = r.ContentHash()
	f.appendTraced(r, window) // a conflict
	f.append(topics.LayerHealth, 0, []byte("no rollup"))
	spans := recorder.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2: %v", len(spans), spans)
	}
	var ofWindow *tracetest.SpanStub
	for i, s := range spans {
		if s.Status.Code != codes.Error || tracingtest.Attributes(s.Attributes)["oona.sampled"] != "false" {
			t.Errorf("span %d has status %v and attributes %v", i, s.Status, s.Attributes)
		}
		if s.SpanContext.TraceID() == trace.TraceID(window.Trace) {
			ofWindow = &spans[i]
		}
	}
	if ofWindow == nil || tracingtest.Attributes(ofWindow.Attributes)["oona.layer"] != "a" {
		t.Errorf("no span is in the trace of the window: %v", spans)
	}
}

func TestExemplars(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, traced(recorder))
	var windows []tracing.Context
	for i, value := range []float64{3, 40, 41, 1e9, 0.25} { // 1e9 is above all bounds
		windows = append(windows, tracing.NewTrace(true))
		f.sendTraced(rollup(oona.Health, "r", "a", gradient(oona.SeedID(i), value)), windows[i])
	}
	f.sendTraced(rollup(oona.Health, "r", "a", gradient(99, 5)), tracing.NewTrace(false))
	h := f.find("kasmina_layer_health", "metric=gradient_norm").GetHistogram()

	// The native histogram has the last four, ascending by time, which they must have.
	if len(h.Exemplars) != 4 {
		t.Fatalf("%d exemplars, want 4", len(h.Exemplars))
	}
	for i, e := range h.Exemplars {
		want := map[string]string{"seed_id": strconv.Itoa(i + 1), "trace_id": windows[i+1].Trace.String()}
		if got := labels(e.Label); len(got) != 2 || got["seed_id"] != want["seed_id"] || got["trace_id"] != want["trace_id"] {
			t.Errorf("exemplar %d has %v, want %v", i, got, want)
		}
		if e.Timestamp == nil || i > 0 && e.Timestamp.AsTime().Before(h.Exemplars[i-1].Timestamp.AsTime()) {
			t.Errorf("exemplar %d is of %v", i, e.Timestamp)
		}
	}
	found := 0
	for i, b := range h.Bucket {
		if b.Exemplar == nil {
			continue
		}
		found++
		below := math.Inf(-1)
		if i > 0 {
			below = h.Bucket[i-1].GetUpperBound()
		}
		if v := b.Exemplar.GetValue(); v <= below || v > b.GetUpperBound() {
			t.Errorf("the bucket above %v to %v has an exemplar of %v", below, b.GetUpperBound(), v)
		}
		if labels(b.Exemplar.Label)["seed_id"] == "1" {
			t.Error("a bucket has an exemplar that is not its last")
		}
	}
	last := h.Bucket[len(h.Bucket)-1]
	if found != 3 || !math.IsInf(last.GetUpperBound(), 1) || last.GetCumulativeCount() != h.GetSampleCount() {
		t.Errorf("%d buckets have exemplars; the last is %v", found, last)
	}
}

// Merged series have no exemplars, as their seeds are of several layers, and neither has a
// histogram of windows without spans.
func TestNoExemplars(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, func(c *export.Config) { c.Tracer, c.MaxLayers = recorder.Tracer, 1 })
	f.sendTraced(rollup(oona.Health, "r", "a", gradient(1, 3)), tracing.NewTrace(false))
	f.sendTraced(rollup(oona.Health, "r", "b", gradient(1, 3)), tracing.NewTrace(true))
	for _, layer := range []string{"a", "other"} {
		if h := f.find("kasmina_layer_health", "layer="+layer, "metric=gradient_norm").GetHistogram(); len(h.Exemplars) != 0 {
			t.Errorf("%s has exemplars %v", layer, h.Exemplars)
		}
	}
}

// What was in the log before the exporter began has no spans and no exemplars: an earlier
// exporter has sent them.
func TestHistoryHasNoSpans(t *testing.T) {
	log := newTape(t, 1)
	window := tracing.NewTrace(true)
	r := rollup(oona.Health, "r", "a", gradient(17, 40))
	r.Trigger, r.Hash = oona.Trigger{Offset: 1}, 0
	r.Hash = r.ContentHash()
	msg := bus.NewMessage(avro.AppendRollup(nil, r), bus.Target{Directed: true})
	msg.Metadata.Set(oona.HeaderTraceparent, window.String())
	if err := log.publisher.Publish(t.Context(), topics.LayerHealth, msg); err != nil {
		t.Fatal(err)
	}
	recorder := tracingtest.New(t, 0)
	f := startOn(t, log.again(t), traced(recorder))
	f.tape.read(t)
	if h := f.find("kasmina_layer_health", "metric=gradient_norm").GetHistogram(); len(h.GetExemplars()) != 0 {
		t.Errorf("history has the exemplars %v", h.Exemplars)
	}
	if spans := recorder.Spans(); len(spans) != 0 {
		t.Errorf("history has the spans %v", spans)
	}
}
