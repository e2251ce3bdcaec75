package windows

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
	"github.com/morphogenetic/oona/windows/reduce"
)

// Engine folds the log of one partition. It is not for concurrent use.
type Engine struct {
	cfg          Config
	spans        spans
	configEpochs configEpochs // the last of which cfg and spans are, and in a replay the last up to the record
	catalogues   Catalogues

	incarnation oona.Incarnation // of the log, as of processedTo

	processedTo    int64
	replaying      bool                // the record at hand
	resumed        Commit              // where the engine was resumed from; zero for a new one
	resumedTo      int64               // what that had processed: records below are replayed
	here           logtime.ReplayPoint // the record at hand
	clock          logtime.Clock
	idleBuckets    logtime.IdleBuckets
	maxAppendedAt  oona.Micros // append time; unset before the first record
	lastAppendedAt oona.Micros // append time of the last record; unset before the first, or not known
	timelines      timelines
	recovery       *recovery // nil: nothing, as a rule
	open           int       // windows
	openLayers     int       // of these windows

	// What follows is memory to use again: it holds nothing between records.
	spareAccumulators []*accumulator
	spareWindows      []*window
	closing           []*window
	layers            []*accumulator
	progress          []reduce.Progress
	scratch           reduce.Scratch
	readings          reduce.Readings
	rollup            oona.Rollup
}

// Memory of closed windows is kept for those to come: as much as is in use, and
// at least for these many. A window with more identities than these was out of
// the ordinary, and their memory goes.
const (
	leastSpareWindows      = 4
	leastSpareAccumulators = 64
	mostSpareIdentities    = 1 << 16
)

// New returns an engine for a log from its first record on. The error is that
// of cfg.Validate or of catalogues.
func New(cfg Config, catalogues Catalogues) (*Engine, error) {
	e, err := newEngine(cfg, catalogues)
	if err != nil {
		return nil, err
	}
	return e, e.resolveCatalogues(e.configEpochs)
}

// newEngine returns an engine whose catalogue is not resolved yet.
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

// ProcessedTo returns the offset after the last record that Fold was given,
// also while it replays; before the first, where it expects to begin.
func (e *Engine) ProcessedTo() int64 { return e.processedTo }

// Fold takes the next record of the log and calls emit, in order, for each
// rollup that the record closes. A rollup is valid during the call only.
// Records come by ascending offset; one below ProcessedTo is a redelivery: it
// is passed, with ReasonProcessed, and changes nothing.
func (e *Engine) Fold(r Record, emit func(*oona.Rollup)) Outcome {
	if r.Offset < e.processedTo {
		return Outcome{Passed, ReasonProcessed, fmt.Sprintf("offset %d is below %d, up to which all is processed", r.Offset, e.processedTo)}
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
		e.replay(&r)
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
	if tick || passed.Reason == ReasonConfigured { // the out-of-orderness may be another
		e.evaluate(&out)
	}
	if r.Frame == nil {
		return passed
	}
	a, refusal := e.checkEventTime(&r)
	if refusal.Verdict != Folded {
		return refusal
	}
	t := e.timelines.find(r.Frame, e.bucket())
	if t == nil {
		if t, refusal = e.admit(&r, e.bucket()); t == nil {
			return refusal
		}
	}
	outcome := e.foldFrame(t, a, &r)
	if start, _ := a.window(r.Frame.ObservedAt); outcome.Verdict == Folded && e.recovery.suppresses(start) {
		outcome = e.recovery.outcome(start)
	}
	// Whatever became of the frame, its producer has come this far.
	if t.frontier.Observe(slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots), r.Frame.ObservedAt) && t.advance(r.Offset, &e.spans) {
		e.closing = t.takeClosed(e.closing[:0])
		e.emitClosed(&out)
	}
	return outcome
}

// pass lets time go on to a record, and reports whether that carries the log
// clock into a new tick interval, or a new bucket of the frontiers.
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

// evaluate advances the watermarks of all timelines, emits what they close, and
// forgets the timelines that have been quiet for long: their watermark is so
// far behind the latest append that a frame which could still be accepted is
// ahead of it, and of the floor that it leaves.
func (e *Engine) evaluate(out *emission) {
	e.closing = e.closing[:0]
	for _, t := range e.timelines.ordered {
		if t.advance(out.trigger.Offset, &e.spans) {
			e.closing = t.takeClosed(e.closing)
		}
	}
	// They are in the order of the timelines' keys by now.
	slices.SortStableFunc(e.closing, func(v, w *window) int { return cmp.Compare(v.end, w.end) })
	e.emitClosed(out)
	e.timelines.forgetOld(earlier(e.maxAppendedAt, e.retention()))
	if len(e.configEpochs) > 1 {
		e.expire(out.trigger.Offset)
	}
}

// bucket is the number of the clock's bucket of the idle horizon.
func (e *Engine) bucket() int64 { return int64(e.clock.Now / e.spans.bucket) }

// guard turns away what cannot be right, as a function of the record and of the
// configurations alone. It returns the frame's era.
func (e *Engine) checkEventTime(r *Record) (*configEpoch, Outcome) {
	at := r.Frame.ObservedAt
	a := e.configEpochs.find(at, r.Offset)
	if a == nil {
		return nil, Outcome{Quarantined, ReasonStale, fmt.Sprintf("observed at %s, when another configuration held, which is out of reach", timestamp(at))}
	}
	if at > later(r.AppendedAt, a.spans.maxSkew) {
		return nil, Outcome{Quarantined, ReasonFuture, fmt.Sprintf("observed at %s, %.6f s after its append; at most %s are allowed: check the trainer's clock", timestamp(at), apart(at, r.AppendedAt), a.cfg.MaxSkew)}
	}
	if at < earlier(r.AppendedAt, a.spans.maxDelay) {
		return nil, Outcome{Quarantined, ReasonStale, fmt.Sprintf("observed at %s, %.6f s before its append; at most %s are allowed", timestamp(at), apart(r.AppendedAt, at), a.cfg.MaxDelay)}
	}
	return a, Outcome{}
}

// take folds a frame of an era into its window, unless it is late, a repeat or
// beyond a cap.
func (e *Engine) foldFrame(t *timeline, a *configEpoch, r *Record) Outcome {
	f := r.Frame
	start, end := a.window(f.ObservedAt)
	if a.closes(end) <= t.watermark {
		return Outcome{Late, ReasonLate, fmt.Sprintf("observed at %s; its window ended at %s and closed %s later, the watermark is at %s", timestamp(f.ObservedAt), timestamp(end), a.cfg.AllowedLateness, timestamp(t.watermark))}
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
	sum, overflow := e.checkCaps(w, f, &a.cfg)
	if overflow.Verdict != Folded {
		return overflow
	}
	if sum == nil {
		layers := 0
		if w != nil {
			layers = len(w.layers)
		}
		if sealed := e.checkSeal(t, a, start, end, layers); sealed.Verdict != Folded {
			return sealed
		}
	}
	if w == nil {
		w = e.openWindow(t, at, a, start, end)
	}
	if sum == nil {
		sum = e.openLayer(w, f.Layer)
	}
	e.addFrame(sum, r, a)
	w.folded[id] = folding{r.Checksum, sum, f.Step, f.ObservedAt}
	return Outcome{}
}

// room returns the accumulator of the frame's layer in w, nil where there is
// none yet, or why there is no room for the frame. W may be nil.
func (e *Engine) checkCaps(w *window, f *oona.Frame, cfg *Config) (*accumulator, Outcome) {
	var a *accumulator
	if w != nil {
		a = w.layers[f.Layer]
		if a == nil && len(w.layers) >= cfg.MaxLayers {
			return nil, Outcome{Overflowed, ReasonLayers, fmt.Sprintf("the window has %d layers, as many as it admits", len(w.layers))}
		}
	}
	nothing := accumulator{}
	held := a
	if held == nil {
		held = &nothing
	}
	if !held.admitsMetrics(f.Metrics, cfg.MaxMetrics) {
		return nil, Outcome{Overflowed, ReasonMetrics, fmt.Sprintf("the layer's window has %d metrics and admits %d; the frame with %d would exceed that", len(held.metrics), cfg.MaxMetrics, len(f.Metrics))}
	}
	if !held.census.Admits(f.Seeds, cfg.MaxSeeds) {
		return nil, Outcome{Overflowed, ReasonSeeds, fmt.Sprintf("the layer's window has %d seeds and admits %d; the frame with %d would exceed that", held.census.Len(), cfg.MaxSeeds, len(f.Seeds))}
	}
	return a, Outcome{}
}

// fold adds a frame that has been admitted, under the configuration of an era.
func (e *Engine) addFrame(a *accumulator, r *Record, by *configEpoch) {
	f := r.Frame
	reduce.Prefetch(a.metrics)
	e.readings.Begin(f, r.Offset, by.cfg.Reducer)
	a.recordExtent(r.Offset, f)
	a.census.Add(f.Seeds, f.States)
	for i := range f.Metrics {
		c := &f.Metrics[i]
		a.metric(i, c.Name, by.catalogue, &by.cfg).Add(&e.readings, c.Values, &e.scratch)
	}
	e.readings.End()
}

func (e *Engine) openWindow(t *timeline, at int, a *configEpoch, start, end oona.Micros) *window {
	var w *window
	if n := len(e.spareWindows); n > 0 {
		w, e.spareWindows = e.spareWindows[n-1], e.spareWindows[:n-1]
	} else {
		w = &window{layers: make(map[oona.LayerID]*accumulator), folded: make(map[identity]folding)}
	}
	w.timeline, w.configEpoch, w.start, w.end, w.first = t, a, start, end, e.here
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

// release keeps the memory of a closed window for the next.
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

// shorten lets go of what is beyond the first n.
func shorten[T any](spare []*T, n int) []*T {
	n = min(n, len(spare))
	clear(spare[n:])
	return spare[:n]
}

// timestamp formats an instant of any year.
func timestamp(t oona.Micros) string { return t.Time().Format("2006-01-02T15:04:05.000000Z") }

// apart returns t - u in seconds, of any two instants.
func apart(t, u oona.Micros) float64 { return float64(t)/1e6 - float64(u)/1e6 }
