package export

import "github.com/morphogenetic/oona"

// windowKey names a rollup of a partition: there must be one content for it.
type windowKey struct {
	run      oona.RunID
	timeline oona.TimelineID
	layer    oona.LayerID
	start    oona.Micros
}

// recentWindows is how many rollups of a partition are remembered: more than an
// aggregator emits between two commits, unless its layers are very many.
const recentWindows = 8192

// recent remembers the contents of the last rollups of a partition, to tell a
// repeat from a rollup that contradicts one.
type recent struct {
	hashes map[windowKey]uint64
	order  []windowKey // a ring once it is full
	oldest int
}

// contradicts reports whether another content was seen under the rollup's key,
// and remembers this one if none was.
func (h *recent) contradicts(r *oona.Rollup) bool {
	key := windowKey{r.Run, r.Timeline, r.Layer, r.Start}
	if hash, known := h.hashes[key]; known {
		return hash != r.Hash
	}
	if h.hashes == nil {
		h.hashes = make(map[windowKey]uint64)
	}
	h.hashes[key] = r.Hash
	if len(h.order) < recentWindows {
		h.order = append(h.order, key)
		return false
	}
	delete(h.hashes, h.order[h.oldest])
	h.order[h.oldest] = key
	h.oldest = (h.oldest + 1) % recentWindows
	return false
}
