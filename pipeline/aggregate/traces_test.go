package aggregate

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/internal/tracing/tracingtest"
)

func newTestTraces(t *testing.T, log *bytes.Buffer) *traces {
	t.Helper()
	return &traces{
		tracer: tracingtest.New(t, 1).Tracer, topic: "topic", logger: slog.New(slog.NewTextHandler(log, nil)),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"}), layers: make(map[tracedLayer][]frameContext),
	}
}

// A partition keeps a bounded number of contexts. What is beyond is counted and logged, and
// there is room again when windows close.
func TestContextsAreBounded(t *testing.T) {
	var log bytes.Buffer
	kept := newTestTraces(t, &log)
	header := tracing.NewTrace(true).String()
	keep := func(n int, observed oona.Micros, in bool, open int) {
		for i := range n {
			kept.keep(&oona.Frame{Run: "r", Layer: "l", ObservedAt: observed}, int64(i), header, in, open)
		}
	}
	keep(mostContexts-1, 5, true, 2)
	keep(1+7, 15, true, 2)
	if kept.held != mostContexts || testutil.ToFloat64(kept.dropped) != 7 {
		t.Errorf("%d contexts are kept, %v were dropped", kept.held, testutil.ToFloat64(kept.dropped))
	}
	if n := strings.Count(log.String(), "limit=65536"); n != 3 { // the 1st, 2nd and 4th
		t.Errorf("%d log lines: %s", n, &log)
	}
	r := oona.Rollup{Group: oona.Performance, Run: "r", Layer: "l", Start: 0, End: 10}
	kept.rollup(&r)
	if kept.held != 1 {
		t.Errorf("%d contexts are left of the window that is open", kept.held)
	}
	r.Start, r.End = 10, 20
	kept.rollup(&r)
	if kept.held != 0 || len(kept.layers) != 0 {
		t.Errorf("%d contexts of %d layers are left when no window is open", kept.held, len(kept.layers))
	}

	// What is left, as of windows that are not emitted after a loss, goes when no window is open.
	keep(3, 5, true, 1)
	keep(1, 5, false, 0)
	if kept.held != 0 || len(kept.layers) != 0 {
		t.Errorf("%d contexts are left, and no window is open", kept.held)
	}
	keep(1, 5, false, 1)
	if kept.held != 0 {
		t.Error("a frame is kept that is in no window")
	}
	if size := unsafe.Sizeof(frameContext{}); size != 40 {
		t.Errorf("a context has %d bytes; docs/tracing.md says 40", size)
	}
}

// The worst seed of each metric is linked before the second worst of any.
func TestWorstSeedsAreLinkedByRank(t *testing.T) {
	kept := newTestTraces(t, new(bytes.Buffer))
	var frames []frameContext
	for i := range byte(2 * mostLinks) {
		frames = append(frames, frameContext{offset: int64(i), trace: tracing.TraceID{i, 1}, span: tracing.SpanID{i, 1}})
	}
	for rank := range mostLinks {
		kept.worst = append(kept.worst, worstSeed{rank, "a", 1, int64(rank)})
	}
	for rank := range mostLinks {
		kept.worst = append(kept.worst, worstSeed{rank, "b", 2, int64(mostLinks + rank)})
	}
	links, worst, dropped := kept.links(frames)
	if len(links) != mostLinks || dropped != mostLinks || len(worst) != 2 {
		t.Fatalf("%d links, %d dropped, worst seeds %v", len(links), dropped, worst)
	}
	for i, want := range []byte{0, mostLinks, 1, mostLinks + 1} {
		if got := links[i].To.Trace[0]; got != want {
			t.Errorf("link %d is of frame %d, want %d", i, got, want)
		}
	}
}

// The span of a window depends on its topic, partition, incarnation, and trigger.
func TestContextOfAWindow(t *testing.T) {
	headers := make(map[string]bool)
	for _, change := range []func(*traces, *oona.Rollup){
		func(*traces, *oona.Rollup) {},
		func(of *traces, _ *oona.Rollup) { of.topic = "another" },
		func(of *traces, _ *oona.Rollup) { of.partition++ },
		func(_ *traces, r *oona.Rollup) { r.Trigger.Incarnation++ },
		func(_ *traces, r *oona.Rollup) { r.Trigger.Offset++ },
		func(_ *traces, r *oona.Rollup) { r.Trigger.Index++ },
	} {
		of, r := newTestTraces(t, new(bytes.Buffer)), oona.Rollup{Run: "r", Layer: "l", End: 10}
		change(of, &r)
		header := of.rollup(&r)
		if headers[header] {
			t.Errorf("%s is of two windows", header)
		}
		headers[header] = true
		r.Group = oona.Performance
		if other := of.rollup(&r); other != header {
			t.Errorf("the rollups of a window have the headers %s and %s", header, other)
		}
	}
}
