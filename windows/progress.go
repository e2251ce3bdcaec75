package windows

import (
	"slices"

	"github.com/morphogenetic/oona/windows/reduce"
)

// collectProgress gives each layer of e.layers the progress of its frames, which the
// window keeps with their identities. Each layer gets a part of e.progress.
func (e *Engine) collectProgress(w *window) {
	e.progress = slices.Grow(e.progress[:0], len(w.folded))[:len(w.folded)]
	free := e.progress
	for _, a := range e.layers {
		a.progress, free = free[:0:a.frames], free[a.frames:]
	}
	for id, f := range w.folded {
		f.into.progress = append(f.into.progress, reduce.Progress{Producer: id.producer, Epoch: id.epoch, Sequence: id.sequence, Step: f.step, At: f.at})
	}
}

// releaseProgress empties e.progress and keeps its memory, within bounds.
func (e *Engine) releaseProgress() {
	clear(e.progress)
	e.progress = e.progress[:0]
	if cap(e.progress) > mostSpareIdentities {
		e.progress = nil
	}
}
