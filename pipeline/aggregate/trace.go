package aggregate

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tracing"
)

const (
	// mostContexts is the maximum number of trace contexts that a partition keeps. They need 2.5 MiB.
	mostContexts = 1 << 16
	// mostLinks is the maximum number of frames to which the span of a window links.
	mostLinks = 32
)

// traces keeps the trace contexts of a partition's sampled frames while their windows are
// open, and makes the spans of windows when they close. The engine does not depend on it. A nil
// *traces does nothing.
type traces struct {
	tracer    *tracing.Tracer
	topic     string
	partition int32
	dropped   prometheus.Counter
	logger    *slog.Logger

	layers   map[tracedLayer][]frameContext
	held     int         // number of contexts in layers
	lost     int         // number of contexts that were dropped
	appended oona.Micros // append time of the record that is being folded
	worst    []worstSeed // worst seeds of the window that is being emitted
}

type tracedLayer struct {
	run      oona.RunID
	timeline oona.TimelineID
	layer    oona.LayerID
}

// frameContext is the trace context of a sampled frame.
type frameContext struct {
	offset   int64
	observed oona.Micros
	trace    tracing.TraceID
	span     tracing.SpanID
}

func (f *frameContext) context() tracing.Context {
	return tracing.Context{Trace: f.trace, Span: f.span, Sampled: true}
}

// worstSeed is one of the worst seeds of a metric in a window.
type worstSeed struct {
	rank   int
	metric string
	seed   oona.SeedID
	offset int64
}

func (f *Folder) newTraces(partition int32, logger *slog.Logger) *traces {
	if f.cfg.Tracer == nil {
		return nil
	}
	return &traces{
		tracer: f.cfg.Tracer, topic: f.cfg.Topics.SeedMetrics, partition: partition, dropped: f.metrics.contextsDropped, logger: logger,
		layers: make(map[tracedLayer][]frameContext),
	}
}

// begin is called before a record is folded.
func (t *traces) begin(appended oona.Micros) {
	if t != nil {
		t.appended = appended
	}
}

// keep is called after a frame was folded or replayed. in says whether the frame is in an open window,
// and open how many windows are open. The contexts of repeats are kept, too.
func (t *traces) keep(f *oona.Frame, offset int64, traceparent string, in bool, open int) {
	if t == nil || f == nil {
		return
	}
	if open == 0 && t.held > 0 {
		clear(t.layers)
		t.held = 0
	}
	if !in {
		return
	}
	c, ok := tracing.Parse(traceparent)
	if !ok || !c.Sampled {
		return
	}
	if t.held == mostContexts {
		t.drop()
		return
	}
	key := tracedLayer{f.Run, f.Timeline, f.Layer}
	t.layers[key] = append(t.layers[key], frameContext{offset, f.ObservedAt, c.Trace, c.Span})
	t.held++
}

// drop counts a context for which there is no room.
func (t *traces) drop() {
	t.dropped.Inc()
	t.lost++
	if t.lost&(t.lost-1) == 0 {
		t.logger.Warn("the span of a window will not link to a frame, because too many sampled frames are in open windows; lower --trace-sample-ratio, or let clients sample less", "limit", mostContexts, "count", t.lost)
	}
}

// rollup is called for each rollup that is emitted, and returns the header for its record.
// It records the span of the window with the second rollup, which is the one of performance.
func (t *traces) rollup(r *oona.Rollup) string {
	key := tracedLayer{r.Run, r.Timeline, r.Layer}
	frames := t.layers[key]
	inside := func(f *frameContext) bool { return f.observed >= r.Start && f.observed < r.End }
	sampled := false
	for i := range frames {
		sampled = sampled || inside(&frames[i])
	}
	context := tracing.Derived(sampled, t.topic, int64(t.partition), int64(r.Trigger.Incarnation), r.Trigger.Offset, int64(r.Trigger.Index))
	if sampled {
		t.noteWorst(r)
	}
	if r.Group != oona.Performance {
		return context.String()
	}
	if sampled {
		own := slices.DeleteFunc(slices.Clone(frames), func(f frameContext) bool { return !inside(&f) })
		t.record(r, context, own)
	}
	t.worst = t.worst[:0]
	// Windows of a layer close in the order of their ends.
	left := slices.DeleteFunc(frames, func(f frameContext) bool { return f.observed < r.End })
	t.held -= len(frames) - len(left)
	if len(left) > 0 {
		t.layers[key] = left
	} else {
		delete(t.layers, key)
	}
	return context.String()
}

func (t *traces) noteWorst(r *oona.Rollup) {
	for i := range r.Metrics {
		m := &r.Metrics[i]
		for rank, worst := range m.Worst[:min(len(m.Worst), mostLinks)] {
			if worst.Offset != oona.NoOffset {
				t.worst = append(t.worst, worstSeed{rank, m.Name, worst.Seed, worst.Offset})
			}
		}
	}
}

// record records the span of a window, from the start of the window to the append time of the record
// that closed it. These times come from the log, so a window that is emitted again has the same span.
func (t *traces) record(r *oona.Rollup, context tracing.Context, frames []frameContext) {
	links, worst, dropped := t.links(frames)
	begin, end := r.Start.Time(), t.appended.Time()
	if end.Before(begin) {
		end = begin
	}
	attributes := []tracing.Attribute{
		tracing.String("messaging.system", "kafka"),
		tracing.String("messaging.operation.name", "process"),
		tracing.String("messaging.operation.type", "process"),
		tracing.String("messaging.destination.name", t.topic),
		tracing.String("messaging.destination.partition.id", fmt.Sprint(t.partition)),
		tracing.Int("messaging.kafka.offset", r.Trigger.Offset),
		tracing.Int("messaging.batch.message_count", r.Frames),
		tracing.Int("oona.frames", r.Frames),
		tracing.Int("oona.links_dropped", int64(dropped)),
	}
	t.tracer.Record(tracing.Span{
		Name: "process " + t.topic, Kind: tracing.Consumer, Context: context, Begin: begin, End: end,
		Attributes: slices.Concat(attributes, tracing.Window(r), worst), Links: links,
	})
}

// links returns links to at most mostLinks different spans of frames, and the number of spans that it
// leaves out. The frames of the worst seeds come first, by rank. The others are sorted by the
// identifiers of their spans, which is a random order that is always the same. links also returns an
// attribute with the worst seed of each metric and the span of its frame, because some backends do not
// show the attributes of links.
func (t *traces) links(frames []frameContext) (links []tracing.Link, worst []tracing.Attribute, dropped int) {
	slices.SortStableFunc(t.worst, func(a, b worstSeed) int { return cmp.Compare(a.rank, b.rank) })
	byOffset := make(map[int64]*frameContext, len(frames))
	for i := range frames {
		byOffset[frames[i].offset] = &frames[i]
	}
	at := make(map[tracing.Context]int) // index in links; -1 if the span is left out
	add := func(f *frameContext) (link int) {
		c := f.context()
		if i, known := at[c]; known {
			return i
		}
		at[c] = -1
		if len(links) < mostLinks {
			at[c] = len(links)
			links = append(links, tracing.Link{To: c, Attributes: []tracing.Attribute{tracing.Int("messaging.kafka.offset", f.offset)}})
		} else {
			dropped++
		}
		return at[c]
	}
	for _, w := range t.worst {
		f := byOffset[w.offset]
		if f == nil {
			continue
		}
		if i := add(f); i >= 0 {
			links[i].Attributes = withWorst(links[i].Attributes, w)
		}
		if w.rank == 0 {
			worst = append(worst, tracing.String(worstKey+w.metric, fmt.Sprintf("seed %d, trace %s, span %s", w.seed, f.trace, f.span)))
		}
	}
	slices.SortFunc(frames, func(a, b frameContext) int {
		return cmp.Or(bytes.Compare(a.span[:], b.span[:]), cmp.Compare(a.offset, b.offset))
	})
	for i := range frames {
		add(&frames[i])
	}
	return links, worst, dropped
}

// worstKey is the beginning of the keys of attributes about the worst seed of a metric.
const worstKey = "oona.worst."

// withWorst adds the seed to the attributes of its frame's link, unless they have a worse seed
// of the metric.
func withWorst(attributes []tracing.Attribute, w worstSeed) []tracing.Attribute {
	key := worstKey + w.metric
	if slices.ContainsFunc(attributes, func(a tracing.Attribute) bool { return string(a.Key) == key }) {
		return attributes
	}
	return append(attributes, tracing.Int(key, int64(w.seed)))
}
