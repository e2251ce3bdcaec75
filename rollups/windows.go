package rollups

import (
	"iter"

	"github.com/morphogenetic/oona"
)

// Windows holds the last windows of a layer in one group, in the order of their
// ends. W is what the reader keeps of a window. The zero value is empty.
type Windows[W any] struct {
	windows []ended[W] // earliest first
}

type ended[W any] struct {
	end    oona.Micros
	window W
}

// Add adds a window that ended at end, and drops the earliest window if limit
// windows were held. The limit must be the same in all calls. Of windows with the
// same end, the one added last comes last: timelines of a run that report the same
// layer have such windows. Add returns false, and adds nothing, if limit later
// windows are held.
func (w *Windows[W]) Add(window W, end oona.Micros, limit int) bool {
	at := len(w.windows)
	for at > 0 && w.windows[at-1].end > end {
		at--
	}
	if len(w.windows) < limit {
		w.windows = append(w.windows, ended[W]{})
		copy(w.windows[at+1:], w.windows[at:])
	} else {
		at--
		if at < 0 {
			return false
		}
		copy(w.windows[:at], w.windows[1:at+1])
	}
	w.windows[at] = ended[W]{end, window}
	return true
}

// Last returns the latest window. If there are no windows, found is false.
func (w *Windows[W]) Last() (end oona.Micros, window W, found bool) {
	if len(w.windows) == 0 {
		return 0, window, false
	}
	last := w.windows[len(w.windows)-1]
	return last.end, last.window, true
}

// All returns the windows with their ends, earliest first.
func (w *Windows[W]) All() iter.Seq2[oona.Micros, W] {
	return func(yield func(oona.Micros, W) bool) {
		for _, e := range w.windows {
			if !yield(e.end, e.window) {
				return
			}
		}
	}
}
