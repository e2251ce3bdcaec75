package windows

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// progress is how far a producer was with a layer at one of its frames.
type progress struct {
	identity
	step int64
	at   oona.Micros // event time
}

// collectProgress gives each layer of e.layers the progress of its frames. The
// window keeps that with the identities of all its frames; here each layer gets
// a stretch of e.progress.
func (e *Engine) collectProgress(w *window) {
	e.progress = slices.Grow(e.progress[:0], len(w.folded))[:len(w.folded)]
	free := e.progress
	for _, a := range e.layers {
		a.progress, free = free[:0:a.frames], free[a.frames:]
	}
	for id, f := range w.folded {
		f.into.progress = append(f.into.progress, progress{id, f.step, f.at})
	}
}

// releaseProgress keeps the memory for the next window.
func (e *Engine) releaseProgress() {
	clear(e.progress)
	e.progress = e.progress[:0]
	if cap(e.progress) > mostSpareIdentities {
		e.progress = nil
	}
}

// stepsOf returns what reducer 2 measures a layer's speed by: the sum of the
// rises of the step from a frame of a producer to its next by sequence, and the
// event time between such frames. A pair in which the step falls (the training
// went back to a checkpoint) or event time does not advance counts for neither.
// The sums go over all producers, so that their quotient is a mean of the
// producers' speeds. It sorts list.
func stepsOf(list []progress) (steps int64, time oona.Micros) {
	slices.SortFunc(list, func(p, q progress) int {
		return cmp.Or(cmp.Compare(p.producer, q.producer), cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.sequence, q.sequence))
	})
	for i := 1; i < len(list); i++ {
		last, next := &list[i-1], &list[i]
		if next.producer != last.producer || next.epoch != last.epoch || next.step < last.step || next.at <= last.at {
			continue
		}
		steps = sumUpTo(steps, next.step-last.step)
		time = sumUpTo(time, next.at-last.at)
	}
	return steps, time
}

// sumUpTo adds what is not negative, and stays at the greatest integer where the
// sum would be above it.
func sumUpTo[T ~int64](a, b T) T {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
