// Package tracingtest records spans in memory, for tests.
package tracingtest

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/morphogenetic/oona/internal/tracing"
)

// Recorder is a tracer whose spans stay in memory.
type Recorder struct {
	*tracing.Tracer
	t    testing.TB
	kept *kept
}

// kept is an exporter that a shutdown does not empty.
type kept struct{ *tracetest.InMemoryExporter }

// Shutdown implements the SDK's SpanExporter.
func (kept) Shutdown(context.Context) error { return nil }

// New returns a recorder of the traces that the sampler takes.
func New(t testing.TB, ratio float64) *Recorder {
	t.Helper()
	k := &kept{tracetest.NewInMemoryExporter()}
	r := &Recorder{tracing.New(k, tracing.NewSampler(ratio), tracing.Process{Name: "test"}, slog.New(slog.DiscardHandler)), t, k}
	t.Cleanup(func() { r.Spans() })
	return r
}

// Spans ends the tracer and returns all spans, by name and start.
func (r *Recorder) Spans() []tracetest.SpanStub {
	r.t.Helper()
	if err := r.Close(10 * time.Second); err != nil {
		r.t.Error(err)
	}
	spans := r.kept.GetSpans()
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.StartTime.Compare(b.StartTime))
	})
	return spans
}

// Attributes returns the attributes of a span or a link as text.
func Attributes(list []attribute.KeyValue) map[string]string {
	out := make(map[string]string)
	for _, a := range list {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}
