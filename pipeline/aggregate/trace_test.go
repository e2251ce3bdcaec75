package aggregate_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/internal/tracing/tracingtest"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// tracedFrame is a record of a log of traced frames.
type tracedFrame struct {
	frame  *oona.Frame
	header string
}

// tracedLog returns a frame for each second. The header of frame i has i in its trace. Of
// frame 5, seed 2 has by far the worst value.
func tracedLog(f *fixture, seconds int) (log []tracedFrame) {
	f.begin = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for i := range seconds {
		frame := f.frame(time.Duration(i) * time.Second)
		if i == 5 {
			frame.Metrics[0].Values[2] = 1000
		}
		log = append(log, tracedFrame{frame, traceparent(i, true)})
	}
	return log
}

func traceparent(i int, sampled bool) string {
	c := tracing.Context{Sampled: sampled}
	c.Trace[0], c.Trace[15], c.Span[0], c.Span[7] = byte(i), 1, byte(i), 1
	return c.String()
}

func traced(r *tracingtest.Recorder) func(*aggregate.Config) {
	return func(c *aggregate.Config) { c.Tracer = r.Tracer }
}

// feedTraced appends records of the log from an offset on. The record at offset 0 configures
// the second version of the reducers, which know the frames of the worst seeds.
func feedTraced(f *fixture, log []tracedFrame, from, to int64) {
	for offset := from; offset < to; offset++ {
		if offset == 0 {
			f.feed.append(f.configuration(1, 0, func(c *windows.Config) { c.Reducer = 2 }), f.begin, own(oona.ConfigurationRecord))
			continue
		}
		record := log[offset-1]
		headers := map[string]string{}
		if record.header != "" {
			headers[oona.HeaderTraceparent] = record.header
		}
		f.feed.append(avro.AppendFrame(nil, record.frame), record.frame.ObservedAt.Time(), headers)
	}
}

func linked(span tracetest.SpanStub) (traces []int) {
	for _, l := range span.Links {
		id := l.SpanContext.TraceID()
		traces = append(traces, int(id[0]))
	}
	return traces
}

func TestSpanOfAWindow(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, traced(recorder))
	log := tracedLog(f, 20) // two windows of 10 s; the first closes at 16 s
	log[3].header = traceparent(3, false)
	log[4].header = ""
	log[6].header = log[5].header // both frames come from one request
	feedTraced(f, log, 0, 21)
	f.stop()
	spans := recorder.Spans()
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1", len(spans))
	}
	span := spans[0]
	if span.Name != "process "+f.topics.SeedMetrics || span.SpanKind != trace.SpanKindConsumer || span.Parent.IsValid() {
		t.Errorf("the span is %s, %v, with parent %v", span.Name, span.SpanKind, span.Parent)
	}
	// Frame 5 comes first, because it has the worst seed. Frames 3 and 4 are not sampled. Frame 6
	// has the same span as frame 5.
	if got := linked(span); len(got) != 7 || got[0] != 5 || slices.Contains(got, 3) || slices.Contains(got, 4) || slices.Contains(got, 6) {
		t.Errorf("the span links frames %v", got)
	}
	if got := tracingtest.Attributes(span.Links[0].Attributes); got["oona.worst.loss"] != "2" || got["messaging.kafka.offset"] != "6" {
		t.Errorf("the first link has %v", got)
	}
	got := tracingtest.Attributes(span.Attributes)
	for key, want := range map[string]string{
		"oona.run": "r", "oona.layer": "enc.0", "oona.frames": "10", "oona.links_dropped": "0",
		"oona.window.start": "2026-05-01T12:00:00.000000Z", "oona.window.end": "2026-05-01T12:00:10.000000Z",
		"messaging.operation.name": "process", "messaging.operation.type": "process", "messaging.system": "kafka",
		"messaging.destination.name": f.topics.SeedMetrics, "messaging.destination.partition.id": "3",
		"messaging.kafka.offset": "17", "messaging.batch.message_count": "10",
		"oona.worst.loss": "seed 2, trace 05000000000000000000000000000001, span 0500000000000001",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	for _, topic := range []string{f.topics.LayerHealth, f.topics.LayerPerformance} {
		header := f.out.of(t, topic)[0].Metadata.Get(oona.HeaderTraceparent)
		c, ok := tracing.Parse(header)
		if !ok || !c.Sampled || trace.TraceID(c.Trace) != span.SpanContext.TraceID() || trace.SpanID(c.Span) != span.SpanContext.SpanID() {
			t.Errorf("the header of the rollup of %s is %q", topic, header)
		}
	}
}

// At most 32 frames are linked, and the frame of the worst seed is one of them.
func TestLinksOfAWindowAreLimited(t *testing.T) {
	recorder := tracingtest.New(t, 0)
	f := start(t, traced(recorder))
	var log []tracedFrame
	for i := range 100 {
		frame := f.frame(time.Duration(i) * 90 * time.Millisecond)
		if i == 77 {
			frame.Metrics[0].Values[1] = -4000
		}
		log = append(log, tracedFrame{frame, traceparent(i, true)})
	}
	log = append(log, tracedFrame{f.frame(20 * time.Second), ""})
	feedTraced(f, log, 0, int64(len(log))+1)
	f.stop()
	span := recorder.Spans()[0]
	if got := linked(span); len(got) != 32 || got[0] != 77 {
		t.Errorf("the span links frames %v", got)
	}
	if got := tracingtest.Attributes(span.Attributes)["oona.links_dropped"]; got != "68" {
		t.Errorf("oona.links_dropped is %s", got)
	}
}

// A window that is emitted again after a restart has the same span and the same header.
func TestWindowEmittedAgainHasTheSameSpan(t *testing.T) {
	describe := func(r *tracingtest.Recorder) (all []string) {
		for _, s := range r.Spans() {
			trace, span := s.SpanContext.TraceID(), s.SpanContext.SpanID()
			all = append(all, fmt.Sprint(s.Name, hex.EncodeToString(trace[:]), hex.EncodeToString(span[:]), s.StartTime, s.EndTime, tracingtest.Attributes(s.Attributes), linked(s)))
		}
		return all
	}
	headers := func(f *fixture) (all []string) {
		for _, msg := range f.out.of(t, f.topics.LayerHealth) {
			all = append(all, msg.Metadata.Get(oona.HeaderTraceparent))
		}
		return all
	}
	whole := tracingtest.New(t, 0)
	first := start(t, traced(whole))
	log := tracedLog(first, 40)
	log[8] = tracedFrame{log[7].frame, traceparent(200, true)} // a repeat
	conflict := *log[7].frame
	conflict.Step += 1000
	log[9] = tracedFrame{&conflict, traceparent(202, true)}     // quarantined
	log[25] = tracedFrame{log[1].frame, traceparent(201, true)} // late
	// The first window closes at offset 17 and the second at 27. The late frame is at 26.
	left := map[int64]int{15: 3, 27: 2} // windows that a successor emits, by where it continues
	commits := make(map[int64]bus.Commit)
	for to := int64(1); to <= 41; to++ {
		feedTraced(first, log, to-1, to)
		if left[to] > 0 {
			commits[to], _ = first.feed.commit()
		}
	}
	first.stop()
	allSpans, allHeaders := describe(whole), headers(first)
	if len(allSpans) != 3 || len(allHeaders) != 3 {
		t.Fatalf("%d spans, %d headers", len(allSpans), len(allHeaders))
	}
	for to, n := range left {
		again := tracingtest.New(t, 0)
		second := startWith(t, takenOver(first.feed.assignment, commits[to]), traced(again))
		second.begin = first.begin
		feedTraced(second, log, commits[to].Offset, 41)
		second.stop()
		if got, want := describe(again), allSpans[3-n:]; !slices.Equal(got, want) {
			t.Errorf("spans after a restart at %d are\n%q\nwant\n%q", to, got, want)
		}
		if got, want := headers(second), allHeaders[3-n:]; !slices.Equal(got, want) {
			t.Errorf("headers after a restart at %d are %q, want %q", to, got, want)
		}
	}
}

// Without a tracer, rollups have no header of a trace.
func TestNoTraces(t *testing.T) {
	f := start(t, nil)
	feedTraced(f, tracedLog(f, 20), 0, 21)
	f.stop()
	if got := f.out.of(t, f.topics.LayerHealth)[0].Metadata; len(got) != 0 {
		t.Errorf("the rollup has the headers %v", got)
	}
}
