package windows

import (
	"math"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/reduce"
)

// emission passes on the rollups of the windows that a record closes.
type emission struct {
	trigger    oona.Trigger // trigger of the next layer's window
	appendedAt oona.Micros
	emit       func(*oona.Rollup)
}

// emitClosed emits the windows in e.closing, which are in order, and keeps their
// memory for later windows.
func (e *Engine) emitClosed(out *emission) {
	for _, w := range e.closing {
		if e.recovery.suppresses(w.start) {
			out.trigger.Index += int32(len(w.layers)) // later windows get the same index as without the loss
			e.release(w)
			continue
		}
		e.layers = e.layers[:0]
		for _, a := range w.layers {
			e.layers = append(e.layers, a)
		}
		if w.configEpoch.cfg.Reducer >= 2 {
			e.collectProgress(w)
		}
		slices.SortFunc(e.layers, func(a, b *accumulator) int { return strings.Compare(string(a.layer), string(b.layer)) })
		for _, a := range e.layers {
			e.emitLayer(w, a, out)
		}
		clear(e.layers)
		e.releaseProgress()
		e.release(w)
	}
	clear(e.closing)
	e.closing = e.closing[:0]
}

// emitLayer emits the two rollups of a layer's window.
func (e *Engine) emitLayer(w *window, a *accumulator, out *emission) {
	a.sortMetrics()
	r := &e.rollup
	*r = oona.Rollup{
		Run:         w.timeline.key.run,
		Layer:       a.layer,
		Timeline:    w.timeline.key.id,
		Start:       w.start,
		End:         w.end,
		Trigger:     out.trigger,
		Watermark:   w.timeline.watermarkBefore(out.trigger.Offset),
		FirstOffset: a.firstOffset,
		LastOffset:  a.lastOffset,
		Frames:      a.frames,
		Readings:    a.readings,
		Duplicates:  a.duplicates,
		Generation:  w.configEpoch.cfg.Generation,
		Reducer:     w.configEpoch.cfg.Reducer,
		Catalogue:   w.configEpoch.cfg.Catalogue,
		Metrics:     r.Metrics,
	}
	out.trigger.Index++

	r.Group = oona.Health
	r.Seeds = a.census.Count()
	e.finish(a, out)

	r.Group = oona.Performance
	r.Seeds = oona.SeedCensus{}
	length := seconds(w.configEpoch.spans.length)
	r.Rates = oona.Rates{
		FramesPerSecond:   float64(a.frames) / length,
		ReadingsPerSecond: float64(a.readings) / length,
		Delay:             difference(out.appendedAt, a.latest),
	}
	if r.Reducer >= 2 {
		r.Rates.Steps, r.Rates.StepTime = reduce.Steps(a.progress)
		if r.Rates.StepTime > 0 {
			r.Rates.StepsPerSecond = float64(r.Rates.Steps) / seconds(r.Rates.StepTime)
		}
	} else {
		r.Rates.StepsPerSecond = a.stepsPerSecond()
	}
	e.finish(a, out)
}

// finish adds the metrics of the rollup's group and emits the rollup.
func (e *Engine) finish(a *accumulator, out *emission) {
	r := &e.rollup
	r.Metrics = r.Metrics[:0]
	for _, i := range a.order {
		m := &a.metrics[i]
		if m.Group != r.Group {
			continue
		}
		r.Metrics = extend(r.Metrics)
		m.Summarize(&r.Metrics[len(r.Metrics)-1])
	}
	r.Hash = r.ContentHash()
	out.emit(r)
}

// difference returns t - u, or the largest or smallest duration if that overflows.
func difference(t, u oona.Micros) oona.Micros {
	d := t - u
	switch {
	case t >= u && d < 0:
		return math.MaxInt64
	case t < u && d >= 0:
		return math.MinInt64
	}
	return d
}
