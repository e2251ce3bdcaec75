package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/reduce"
)

// Engine folds the log of one partition into hopping windows or sessions. Time, watermarks
// and lateness are as in windows.Engine. It is not safe for concurrent use.
//
// The limits apply to each pane of a hopping window, and to each session. A frame is a repeat if the
// same frame was folded into the same pane, or into the same session.
type Engine struct {
	settings Settings
	spans    spans
	folder   folder

	processedTo int64
	incarnation oona.Incarnation
	clock       logtime.Clock
	bucket      int64 // the current bucket of the idle horizon
	maxAppended oona.Micros
	timelines   map[timelineKey]*timeline
	layers      int         // number of layers in open panes, or number of open sessions
	floor       oona.Micros // the greatest watermark of any timeline that was forgotten
	closed      []closed
}

// spans are durations in microseconds.
type spans struct {
	length, hop, gap, lateness, outOfOrderness, tick, bucket, maxSkew, maxDelay oona.Micros
}

type timelineKey struct {
	run oona.RunID
	id  oona.TimelineID
}

func (k timelineKey) compare(l timelineKey) int {
	return cmp.Or(strings.Compare(string(k.run), string(l.run)), strings.Compare(string(k.id), string(l.id)))
}

// timeline is a run, or a rank of a run that owns its layers.
type timeline struct {
	key       timelineKey
	frontier  logtime.ActiveSet
	watermark oona.Micros
	moved     int64       // offset of the record that last moved the watermark
	before    oona.Micros // the watermark before that record
	windows   open
}

// open has the open windows of a timeline.
type open interface {
	// fold folds a frame, unless the watermark has passed its windows.
	fold(r *windows.Record, watermark oona.Micros) windows.Outcome
	// close removes the windows that a watermark closes, and appends them to dst.
	close(dst []closed, watermark oona.Micros) []closed
	// last returns the watermark that closes all windows, or false if none is open.
	last() (oona.Micros, bool)
	count() int
}

// closed is a window of a layer that is to be emitted.
type closed struct {
	timeline   *timeline
	layer      oona.LayerID
	start, end oona.Micros
	content    *layer
}

// NewEngine returns an engine that folds a log from its first record on.
func NewEngine(s Settings, catalogues windows.Catalogues) (*Engine, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	about, err := catalogues(s.Config.Catalogue)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", s.Config.Catalogue, err)
	}
	micros := func(d time.Duration) oona.Micros { return oona.Micros(d.Microseconds()) }
	c := s.Config
	return &Engine{
		settings: s,
		spans: spans{micros(c.Length), micros(s.Hop), micros(s.Gap), micros(c.AllowedLateness), micros(c.OutOfOrderness), micros(c.TickInterval),
			logtime.BucketWidth(micros(c.IdleHorizon)), micros(c.MaxSkew), micros(c.MaxDelay)},
		folder:      folder{about: about, options: reduce.Options{Reducer: c.Reducer, WorstSeeds: c.WorstSeeds}},
		maxAppended: beginning, floor: beginning, timelines: make(map[timelineKey]*timeline),
	}, nil
}

// OpenWindows returns the number of open panes or sessions.
func (e *Engine) OpenWindows() (n int) {
	for _, t := range e.timelines {
		n += t.windows.count()
	}
	return n
}

// Fold folds the next record of the log. A rollup is valid only during the call of emit.
func (e *Engine) Fold(r windows.Record, emit func(*oona.Rollup)) windows.Outcome {
	if r.Offset < e.processedTo {
		return windows.Outcome{Verdict: windows.Passed, Reason: windows.ReasonProcessed}
	}
	e.processedTo = r.Offset + 1
	if r.Incarnation != nil {
		e.incarnation = max(e.incarnation, r.Incarnation.Number)
		if !e.clock.Started {
			return windows.Outcome{Verdict: windows.Passed, Reason: windows.ReasonBegun}
		}
	}
	out := emission{trigger: oona.Trigger{Incarnation: e.incarnation, Offset: r.Offset}, appendedAt: r.AppendedAt, emit: emit}
	if e.advanceClock(r.AppendedAt) {
		e.evaluate(&out)
	}
	if r.Frame == nil {
		return windows.Outcome{Verdict: windows.Passed}
	}
	at := r.Frame.ObservedAt
	switch {
	case at > r.AppendedAt+e.spans.maxSkew:
		return windows.Outcome{Verdict: windows.Quarantined, Reason: windows.ReasonFuture}
	case at < r.AppendedAt-e.spans.maxDelay:
		return windows.Outcome{Verdict: windows.Quarantined, Reason: windows.ReasonStale}
	}
	t := e.timeline(r.Frame)
	if t == nil {
		return windows.Outcome{Verdict: windows.Overflowed, Reason: windows.ReasonTimelines}
	}
	outcome := t.windows.fold(&r, t.watermark)
	slot := windows.SlotNumber(r.Frame.Producer, r.Path, e.settings.Config.FrontierSlots)
	if t.frontier.Observe(slot, at) && e.advance(t, r.Offset) {
		e.closed = e.close(e.closed[:0], t)
		e.emitClosed(&out)
	}
	return outcome
}

// advanceClock reports whether the clock enters a new tick interval, or a new bucket of the
// idle horizon.
func (e *Engine) advanceClock(appendedAt oona.Micros) bool {
	first := !e.clock.Started
	e.maxAppended = max(e.maxAppended, appendedAt)
	before := e.clock
	e.clock.Advance(appendedAt, 2*e.spans.tick)
	bucket := int64(e.clock.Now / e.spans.bucket)
	if bucket != e.bucket || first {
		e.bucket = bucket
		for _, t := range e.timelines {
			t.frontier.Roll(bucket)
		}
		return true
	}
	return e.clock.Now/e.spans.tick != before.Now/e.spans.tick
}

// full reports whether no further layer may be opened.
func (e *Engine) full() bool { return e.layers >= e.settings.Config.MaxAccumulators }

// timeline returns the timeline of a frame, or nil if there would be too many.
func (e *Engine) timeline(f *oona.Frame) *timeline {
	key := timelineKey{f.Run, f.Timeline}
	if t := e.timelines[key]; t != nil {
		return t
	}
	if len(e.timelines) >= e.settings.Config.MaxTimelines {
		oldest := e.oldestQuiet()
		if oldest == nil {
			return nil
		}
		e.forget(oldest)
	}
	t := &timeline{key: key, frontier: logtime.NewActiveSet(), watermark: e.floor, moved: -1}
	t.frontier.Roll(e.bucket)
	if e.settings.Kind == oona.Session {
		t.windows = &sessions{Engine: e, of: make(map[oona.LayerID][]*session)}
	} else {
		t.windows = &panes{Engine: e, closedTo: e.floor}
	}
	e.timelines[key] = t
	return t
}

func (t *timeline) quiet() bool { return t.windows.count() == 0 && t.frontier.Len() == 0 }

func (e *Engine) oldestQuiet() (oldest *timeline) {
	for _, t := range e.timelines {
		if t.quiet() && (oldest == nil || cmp.Or(cmp.Compare(t.watermark, oldest.watermark), t.key.compare(oldest.key)) < 0) {
			oldest = t
		}
	}
	return oldest
}

func (e *Engine) forget(t *timeline) {
	e.floor = max(e.floor, t.watermark)
	delete(e.timelines, t.key)
}

// advance moves the watermark of a timeline as far as its producers allow. If all producers are idle,
// it moves the watermark just far enough to close the open windows.
func (e *Engine) advance(t *timeline, offset int64) bool {
	to := beginning
	if least, active := t.frontier.Least(); active {
		to = least - e.spans.outOfOrderness
	} else if last, open := t.windows.last(); open {
		to = last
	}
	if to <= t.watermark {
		return false
	}
	if t.moved != offset {
		t.moved, t.before = offset, t.watermark
	}
	t.watermark = to
	return true
}

func (e *Engine) close(dst []closed, t *timeline) []closed {
	from := len(dst)
	dst = t.windows.close(dst, t.watermark)
	for i := range dst[from:] {
		dst[from+i].timeline = t
	}
	return dst
}

// evaluate advances all watermarks, emits the windows that they close, and forgets old
// timelines.
func (e *Engine) evaluate(out *emission) {
	e.closed = e.closed[:0]
	for _, t := range e.timelines {
		if e.advance(t, out.trigger.Offset) {
			e.closed = e.close(e.closed, t)
		}
	}
	e.emitClosed(out)
	for _, t := range e.timelines {
		if t.quiet() && t.watermark < e.maxAppended-e.spans.maxDelay-e.spans.maxSkew {
			e.forget(t)
		}
	}
}

// emission passes on the rollups of the windows that a record closes.
type emission struct {
	trigger    oona.Trigger // trigger of the next window
	appendedAt oona.Micros
	emit       func(*oona.Rollup)
}

// emitClosed emits the windows in the order of end, timeline, layer and start.
func (e *Engine) emitClosed(out *emission) {
	slices.SortFunc(e.closed, func(a, b closed) int {
		return cmp.Or(cmp.Compare(a.end, b.end), a.timeline.key.compare(b.timeline.key), cmp.Compare(a.layer, b.layer), cmp.Compare(a.start, b.start))
	})
	for i := range e.closed {
		e.emit(&e.closed[i], out)
		out.trigger.Index++
	}
	clear(e.closed)
}

// emit emits the two rollups of a window.
func (e *Engine) emit(c *closed, out *emission) {
	watermark := c.timeline.watermark
	if c.timeline.moved == out.trigger.Offset {
		watermark = c.timeline.before
	}
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		r := &oona.Rollup{
			Group: group, Run: c.timeline.key.run, Layer: c.layer, Timeline: c.timeline.key.id,
			Start: c.start, End: c.end, Trigger: out.trigger, Watermark: watermark,
			FirstOffset: c.content.firstOffset, LastOffset: c.content.lastOffset,
			Frames: c.content.frames, Readings: c.content.readings, Duplicates: c.content.duplicates,
			Generation: e.settings.Config.Generation, Reducer: e.settings.Config.Reducer, Catalogue: e.settings.Config.Catalogue,
			Kind: e.settings.Kind, Hop: e.spans.hop, Metrics: c.content.summaries(group),
		}
		if group == oona.Health {
			r.Seeds = c.content.census()
		} else {
			r.Rates = c.content.rates(c.end-c.start, out.appendedAt)
		}
		r.Hash = r.ContentHash()
		out.emit(r)
	}
}
