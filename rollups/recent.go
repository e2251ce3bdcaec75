package rollups

import "github.com/morphogenetic/oona"

// windowKey names a rollup of a partition: there must be one content for it.
type windowKey struct {
	run      oona.RunID
	timeline oona.TimelineID
	layer    oona.LayerID
	start    oona.Micros
}

// content is what a window was first read with, and from which records.
type content struct {
	hash        uint64
	incarnation oona.Incarnation
	first, last int64 // offsets
}

// recentWindows is how many rollups of a partition are remembered. It is more
// than an aggregator emits between two commits, unless its layers are very many.
const recentWindows = 8192

// recent remembers the contents of the last rollups of a partition.
type recent struct {
	contents map[windowKey]content
	order    []windowKey // a ring once it is full
	oldest   int
}

func keyOf(r *oona.Rollup) windowKey { return windowKey{r.Run, r.Timeline, r.Layer, r.Start} }

// of returns the content with which the rollup's window was first read.
func (h *recent) of(r *oona.Rollup) (before content, known bool) {
	before, known = h.contents[keyOf(r)]
	return before, known
}

// remember takes in a rollup whose window is not known.
func (h *recent) remember(r *oona.Rollup) {
	key := keyOf(r)
	if h.contents == nil {
		h.contents = make(map[windowKey]content)
	}
	h.contents[key] = content{r.Hash, r.Trigger.Incarnation, r.FirstOffset, r.LastOffset}
	if len(h.order) < recentWindows {
		h.order = append(h.order, key)
		return
	}
	delete(h.contents, h.order[h.oldest])
	h.order[h.oldest] = key
	h.oldest = (h.oldest + 1) % recentWindows
}
