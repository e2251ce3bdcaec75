package windows

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
	"github.com/morphogenetic/oona/windows/reduce"
)

// Engine folds the log of one partition. It is not safe for concurrent use.
type Engine struct {
	cfg          Config
	spans        spans
	configEpochs configEpochs // cfg and spans belong to the last one; in a replay, to the last one up to the current record
	catalogues   Catalogues

	incarnation oona.Incarnation // incarnation of the log at processedTo

	processedTo    int64
	replaying      bool                // the current record was processed before the commit
	replayedOpen   bool                // see ReplayedOpen
	resumed        Commit              // the commit from which the engine was resumed; zero for a new one
	resumedTo      int64               // ProcessedTo of that commit: records below it are replayed
	here           logtime.ReplayPoint // the current record
	clock          logtime.Clock
	idleBuckets    logtime.IdleBuckets
	maxAppendedAt  oona.Micros // greatest append time; unset before the first record
	lastAppendedAt oona.Micros // append time of the last record; unset before the first, or if not known
	timelines      timelines
	recovery       *recovery // nil unless the engine was restarted after a loss
	open           int       // number of open windows
	openLayers     int       // number of layers in these windows

	// The fields below are memory that is reused. They have no content between records.
	spareAccumulators []*accumulator
	spareWindows      []*window
	closing           []*window
	layers            []*accumulator
	progress          []reduce.Progress
	scratch           reduce.Scratch
	readings          reduce.Readings
	rollup            oona.Rollup
}

// The memory of closed windows is kept for later ones: as much as is in use, and at
// least as much as these constants say. A window with more than mostSpareIdentities
// frames is exceptional, and the memory of its identities is not kept.
const (
	leastSpareWindows      = 4
	leastSpareAccumulators = 64
	mostSpareIdentities    = 1 << 16
)

// New returns an engine that folds a log from its first record on. It returns an error of
// cfg.Validate or of catalogues.
func New(cfg Config, catalogues Catalogues) (*Engine, error) {
	e, err := newEngine(cfg, catalogues)
	if err != nil {
		return nil, err
	}
	return e, e.resolveCatalogues(e.configEpochs)
}

// newEngine returns an engine whose catalogues are not resolved yet.
func newEngine(cfg Config, catalogues Catalogues) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("window configuration: %w", err)
	}
	return &Engine{
		cfg:          cfg,
		spans:        spansOf(cfg),
		configEpochs: configEpochs{newConfigEpoch(cfg, unset, unknown)},
		catalogues:   catalogues,
		timelines:    newTimelines(),

		maxAppendedAt:  unset,
		lastAppendedAt: unset,
	}, nil
}

// OpenWindows returns the number of windows that are open, over all timelines.
func (e *Engine) OpenWindows() int { return e.open }

// ReplayedOpen reports whether the frame of the last record, which was Replayed, is in an
// open window: it was Folded or a Duplicate before.
func (e *Engine) ReplayedOpen() bool { return e.replayedOpen }

// ProcessedTo returns the offset after the last record that was passed to Fold, even during a
// replay. Before the first record, it is the offset at which the log is expected to begin.
func (e *Engine) ProcessedTo() int64 { return e.processedTo }

// Fold folds the next record of the log. It calls emit, in order, for each rollup
// that the record closes; a rollup is valid only during the call. Offsets must
// ascend. A record below ProcessedTo is a redelivery: it is Passed, with
// ReasonProcessed, and changes nothing.
func (e *Engine) Fold(r Record, emit func(*oona.Rollup)) Outcome {
	if r.Offset < e.processedTo {
		return Outcome{Passed, ReasonProcessed, fmt.Sprintf("offset %d is below %d, up to which everything is processed", r.Offset, e.processedTo)}
	}
	e.here = logtime.ReplayPoint{Offset: r.Offset, Clock: e.clock}
	e.processedTo = r.Offset + 1
	e.replaying = r.Offset < e.resumedTo
	e.lastAppendedAt = r.AppendedAt
	if r.Incarnation != nil && e.opensLog() {
		return e.beginIncarnation(r.Incarnation)
	}
	tick := e.advanceClock(r.AppendedAt)
	if e.replaying {
		e.replayedOpen = e.replay(&r)
		return Outcome{Verdict: Replayed}
	}
	passed := Outcome{Verdict: Passed}
	if r.Incarnation != nil {
		passed = e.beginIncarnation(r.Incarnation)
	}
	out := emission{trigger: oona.Trigger{Incarnation: e.incarnation, Offset: r.Offset}, appendedAt: r.AppendedAt, emit: emit}
	if e.recovery != nil {
		e.advanceRecovery(r.AppendedAt)
	}
	if r.Configuration != nil {
		passed = e.configure(&r)
	}
	if tick || passed.Reason == ReasonConfigured { // a configuration may change the out-of-orderness
		e.evaluate(&out)
	}
	if r.Frame == nil {
		return passed
	}
	c, refusal := e.checkEventTime(&r)
	if refusal.Verdict != Folded {
		return refusal
	}
	t := e.timelines.find(r.Frame, e.bucket())
	if t == nil {
		if t, refusal = e.admit(&r, e.bucket()); t == nil {
			return refusal
		}
	}
	outcome := e.foldFrame(t, c, &r)
	if start, _ := c.window(r.Frame.ObservedAt); outcome.Verdict == Folded && e.recovery.suppresses(start) {
		outcome = e.recovery.outcome(start)
	}
	// Whatever the outcome for the frame is, its producer has reached this event time.
	if t.frontier.Observe(slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots), r.Frame.ObservedAt) && t.advance(r.Offset, &e.spans) {
		e.closing = t.takeClosed(e.closing[:0])
		e.emitClosed(&out)
	}
	return outcome
}

// advanceClock advances the log clock to the current record, and reports whether it
// enters a new tick interval or a new bucket of the idle horizon.
func (e *Engine) advanceClock(appendedAt oona.Micros) bool {
	e.maxAppendedAt = max(e.maxAppendedAt, appendedAt)
	before := e.clock
	e.clock.Advance(appendedAt, 2*e.spans.tick)
	bucket := e.bucket()
	if !e.idleBuckets.Begun(bucket) {
		e.idleBuckets.Begin(bucket, e.here)
		for _, t := range e.timelines.ordered {
			t.frontier.Roll(bucket)
		}
		return true
	}
	return e.clock.Now/e.spans.tick != before.Now/e.spans.tick
}

// evaluate advances the watermarks of all timelines and emits the windows that they close. Then
// it forgets timelines that have been quiet for a long time: so long that every frame that could
// still be accepted is later than their watermark, and so later than the floor that they leave.
func (e *Engine) evaluate(out *emission) {
	e.closing = e.closing[:0]
	for _, t := range e.timelines.ordered {
		if t.advance(out.trigger.Offset, &e.spans) {
			e.closing = t.takeClosed(e.closing)
		}
	}
	// Until now, they are in the order of the keys of their timelines.
	slices.SortStableFunc(e.closing, func(v, w *window) int { return cmp.Compare(v.end, w.end) })
	e.emitClosed(out)
	e.timelines.forgetOld(earlier(e.maxAppendedAt, e.retention()))
	if len(e.configEpochs) > 1 {
		e.expire(out.trigger.Offset)
	}
}

// bucket is the number of the clock's bucket of the idle horizon.
func (e *Engine) bucket() int64 { return int64(e.clock.Now / e.spans.bucket) }

// checkEventTime returns the configuration epoch of a frame, or the outcome if its
// event time cannot be right. It depends only on the record and the configurations.
func (e *Engine) checkEventTime(r *Record) (*configEpoch, Outcome) {
	at := r.Frame.ObservedAt
	c := e.configEpochs.find(at, r.Offset)
	if c == nil {
		return nil, Outcome{Quarantined, ReasonStale, fmt.Sprintf("observed at %s, in the time of a configuration that has expired", timestamp(at))}
	}
	switch c.spans.misplaced(at, r.AppendedAt) {
	case ReasonFuture:
		return nil, Outcome{Quarantined, ReasonFuture, fmt.Sprintf("observed at %s, %.6f s after its append; at most %s are allowed: check the trainer's clock", timestamp(at), apart(at, r.AppendedAt), c.cfg.MaxSkew)}
	case ReasonStale:
		return nil, Outcome{Quarantined, ReasonStale, fmt.Sprintf("observed at %s, %.6f s before its append; at most %s are allowed", timestamp(at), apart(r.AppendedAt, at), c.cfg.MaxDelay)}
	}
	return c, Outcome{}
}

// foldFrame folds a frame of a configuration epoch into its window, unless the frame is late, is a
// repeat or exceeds a limit.
func (e *Engine) foldFrame(t *timeline, c *configEpoch, r *Record) Outcome {
	f := r.Frame
	start, end := c.window(f.ObservedAt)
	if c.closesAt(end) <= t.watermark {
		return Outcome{Late, ReasonLate, fmt.Sprintf("observed at %s; its window ended at %s and closed %s later, the watermark is at %s", timestamp(f.ObservedAt), timestamp(end), c.cfg.AllowedLateness, timestamp(t.watermark))}
	}
	w, at := t.find(start)
	id := identity{f.Producer, f.Epoch, f.Sequence}
	if w != nil {
		if first, repeated := w.folded[id]; repeated {
			if first.checksum != r.Checksum {
				return Outcome{Quarantined, ReasonConflict, fmt.Sprintf("frame %d of producer %s since epoch %d was folded with other bytes: checksum %016x, here %016x", f.Sequence, f.Producer, f.Epoch, first.checksum, r.Checksum)}
			}
			first.into.duplicates++
			return Outcome{Duplicate, ReasonDuplicate, "the same frame was folded before"}
		}
	}
	sum, overflow := e.checkCaps(w, f, &c.cfg)
	if overflow.Verdict != Folded {
		return overflow
	}
	if sum == nil {
		layers := 0
		if w != nil {
			layers = len(w.layers)
		}
		if sealed := e.checkSeal(t, c, start, end, layers); sealed.Verdict != Folded {
			return sealed
		}
	}
	if w == nil {
		w = e.openWindow(t, at, c, start, end)
	}
	if sum == nil {
		sum = e.openLayer(w, f.Layer)
	}
	e.addFrame(sum, r, c)
	w.folded[id] = folding{r.Checksum, sum, f.Step, f.ObservedAt}
	return Outcome{}
}

// checkCaps returns the accumulator of the frame's layer in w, or nil if w does not have the layer
// yet. If the frame would exceed a limit, it returns the outcome. The window w may be nil.
func (e *Engine) checkCaps(w *window, f *oona.Frame, cfg *Config) (*accumulator, Outcome) {
	var a *accumulator
	if w != nil {
		a = w.layers[f.Layer]
		if a == nil && len(w.layers) >= cfg.MaxLayers {
			return nil, Outcome{Overflowed, ReasonLayers, fmt.Sprintf("the window has %d layers, as many as it admits", len(w.layers))}
		}
	}
	empty := accumulator{}
	held := a
	if held == nil {
		held = &empty
	}
	if !held.admitsMetrics(f.Metrics, cfg.MaxMetrics) {
		return nil, Outcome{Overflowed, ReasonMetrics, fmt.Sprintf("the layer's window has %d metrics and admits %d; the frame with %d would exceed that", len(held.metrics), cfg.MaxMetrics, len(f.Metrics))}
	}
	if !held.census.Admits(f.Seeds, cfg.MaxSeeds) {
		return nil, Outcome{Overflowed, ReasonSeeds, fmt.Sprintf("the layer's window has %d seeds and admits %d; the frame with %d would exceed that", held.census.Len(), cfg.MaxSeeds, len(f.Seeds))}
	}
	return a, Outcome{}
}

// addFrame adds a frame to its layer's accumulator, under the configuration of an
// epoch.
func (e *Engine) addFrame(a *accumulator, r *Record, c *configEpoch) {
	f := r.Frame
	reduce.Prefetch(a.metrics)
	e.readings.Begin(f, r.Offset, c.cfg.Reducer)
	a.recordExtent(r.Offset, f)
	a.census.Add(f.Seeds, f.States)
	for i := range f.Metrics {
		column := &f.Metrics[i]
		a.metric(i, column.Name, c.catalogue, &c.cfg).Add(&e.readings, column.Values, &e.scratch)
	}
	e.readings.End()
}

func (e *Engine) openWindow(t *timeline, at int, c *configEpoch, start, end oona.Micros) *window {
	var w *window
	if n := len(e.spareWindows); n > 0 {
		w, e.spareWindows = e.spareWindows[n-1], e.spareWindows[:n-1]
	} else {
		w = &window{layers: make(map[oona.LayerID]*accumulator), folded: make(map[identity]folding)}
	}
	w.timeline, w.configEpoch, w.start, w.end, w.first = t, c, start, end, e.here
	t.windows = slices.Insert(t.windows, at, w)
	e.open++
	return w
}

func (e *Engine) openLayer(w *window, layer oona.LayerID) *accumulator {
	var a *accumulator
	if n := len(e.spareAccumulators); n > 0 {
		a, e.spareAccumulators = e.spareAccumulators[n-1], e.spareAccumulators[:n-1]
	} else {
		a = new(accumulator)
	}
	a.layer = layer
	w.layers[layer] = a
	w.timeline.openLayers++
	e.openLayers++
	return a
}

// release keeps the memory of a closed window for a later one.
func (e *Engine) release(w *window) {
	e.open--
	e.openLayers -= len(w.layers)
	w.timeline.openLayers -= len(w.layers)
	for _, a := range w.layers {
		a.reset()
		e.spareAccumulators = append(e.spareAccumulators, a)
	}
	clear(w.layers)
	w.timeline, w.configEpoch = nil, nil
	if len(w.folded) > mostSpareIdentities {
		w.folded = make(map[identity]folding)
	}
	clear(w.folded)
	e.spareWindows = append(e.spareWindows, w)
	e.spareAccumulators = shorten(e.spareAccumulators, max(e.openLayers, leastSpareAccumulators))
	e.spareWindows = shorten(e.spareWindows, max(e.open, leastSpareWindows))
}

// shorten drops all but the first n.
func shorten[T any](spare []*T, n int) []*T {
	n = min(n, len(spare))
	clear(spare[n:])
	return spare[:n]
}

// timestamp formats an instant, whatever its year.
func timestamp(t oona.Micros) string { return t.Time().Format("2006-01-02T15:04:05.000000Z") }

// apart returns t - u in seconds. It does not overflow.
func apart(t, u oona.Micros) float64 { return float64(t)/1e6 - float64(u)/1e6 }
