package tracing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// stalled is an exporter that never answers.
type stalled struct{ begun chan struct{} }

// ExportSpans implements the SDK's SpanExporter.
func (s stalled) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	select {
	case s.begun <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

// Shutdown implements the SDK's SpanExporter.
func (stalled) Shutdown(context.Context) error { return nil }

func span(sampled bool) Span {
	return Span{Name: "a span", Context: NewTrace(sampled), Begin: time.Now(), End: time.Now()}
}

// A collector that does not answer neither blocks a worker nor delays its end. What is
// dropped is counted and logged.
func TestStalledCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		exporter := stalled{make(chan struct{}, 1)}
		tracer := New(exporter, NewSampler(1), Process{}, slog.New(slog.NewTextHandler(&log, nil)))
		tracer.Record(span(true))
		<-exporter.begun // the span has left the queue
		began := time.Now()
		for range queueLength + 7 {
			tracer.Record(span(true))
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Record has waited for %s", waited)
		}
		dropped := func(reason string) float64 {
			return testutil.ToFloat64(tracer.counts.dropped.WithLabelValues(reason))
		}
		if n := dropped(droppedQueue); n != 7 {
			t.Errorf("%v spans were dropped because of the queue, want 7", n)
		}
		began = time.Now()
		if err := tracer.Close(3 * time.Second); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > 3*time.Second {
			t.Errorf("Close has waited for %s", waited)
		}
		if n := dropped(droppedExport); n != queueLength+1 {
			t.Errorf("%v spans were dropped at the export, want %d", n, queueLength+1)
		}
		if n := strings.Count(log.String(), "spans were dropped"); n != 1 {
			t.Errorf("%d log lines within %s: %s", n, warnEvery, &log)
		}
	})
}

// What waits is sent before a tracer ends.
func TestCloseSendsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		tracer := New(exporterFunc(func(spans []sdk.ReadOnlySpan) error {
			if len(spans) > batchLength {
				t.Errorf("a batch has %d spans", len(spans))
			}
			sent += len(spans)
			return nil
		}), NewSampler(1), Process{}, slog.New(slog.DiscardHandler))
		for range 3*batchLength + 1 {
			tracer.Record(span(true))
		}
		if err := tracer.Close(time.Second); err != nil {
			t.Error(err)
		}
		if sent != 3*batchLength+1 || testutil.ToFloat64(tracer.counts.sent) != float64(sent) {
			t.Errorf("%d spans were sent", sent)
		}
	})
}

type exporterFunc func([]sdk.ReadOnlySpan) error

// ExportSpans implements the SDK's SpanExporter.
func (f exporterFunc) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error { return f(spans) }

// Shutdown implements the SDK's SpanExporter.
func (exporterFunc) Shutdown(context.Context) error { return nil }

// A collector that refuses spans costs only these.
func TestRefusedSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuse atomic.Bool
		refuse.Store(true)
		var log bytes.Buffer
		tracer := New(exporterFunc(func([]sdk.ReadOnlySpan) error {
			if refuse.Load() {
				return errors.New(strings.Repeat("refused", 10_000)) // as with a page for an answer
			}
			return nil
		}), NewSampler(1), Process{}, slog.New(slog.NewTextHandler(&log, nil)))
		tracer.Record(span(true))
		time.Sleep(2 * linger)
		refuse.Store(false)
		tracer.Record(span(true))
		if err := tracer.Close(time.Second); err != nil {
			t.Error(err)
		}
		if sent, dropped := testutil.ToFloat64(tracer.counts.sent), testutil.ToFloat64(tracer.counts.dropped.WithLabelValues(droppedExport)); sent != 1 || dropped != 1 {
			t.Errorf("%v spans were sent and %v dropped", sent, dropped)
		}
		if log.Len() == 0 || log.Len() > 2*longestError {
			t.Errorf("the log has %d bytes", log.Len())
		}
	})
}

// A tracer that is off, and a span that is not sampled, cost no allocation.
func TestOffIsFree(t *testing.T) {
	var off *Tracer
	on := New(exporterFunc(func([]sdk.ReadOnlySpan) error { return nil }), NewSampler(0), Process{}, slog.New(slog.DiscardHandler))
	defer func() {
		if err := errors.Join(off.Close(0), on.Close(time.Second)); err != nil {
			t.Error(err)
		}
	}()
	s := span(false)
	if n := testing.AllocsPerRun(100, func() { off.Record(s); on.Record(s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") }); n != 0 {
		t.Errorf("Parse makes %v allocations", n)
	}
}
