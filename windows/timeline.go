package windows

import (
	"cmp"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
)

// timelineKey names a timeline of the partition.
type timelineKey struct {
	run oona.RunID
	id  oona.TimelineID
}

func (k timelineKey) compare(l timelineKey) int {
	return cmp.Or(strings.Compare(string(k.run), string(l.run)), strings.Compare(string(k.id), string(l.id)))
}

// timeline is what has one watermark: a run, or one rank of it.
type timeline struct {
	key       timelineKey
	frontier  frontier
	watermark oona.Micros // unset until the first frame
	moved     move
	windows   []*window // open, by start
	seen      map[identity]folding
}

// move is the last record that moved a watermark, and from where.
type move struct {
	offset int64
	from   oona.Micros
}

// identity is a frame's own: a repeat has the same.
type identity struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

// folding is where and from which bytes a frame was folded.
type folding struct {
	checksum uint64
	into     *accumulator
}

// window is an open window of a timeline.
type window struct {
	timeline   *timeline
	start, end oona.Micros
	layers     map[oona.LayerID]*accumulator
	identities []identity // folded into it
}

func newTimeline(key timelineKey, bucket int64) *timeline {
	return &timeline{
		key:       key,
		frontier:  frontier{bucket: bucket, position: make(map[int]int)},
		watermark: unset,
		moved:     move{offset: -1},
		seen:      make(map[identity]folding),
	}
}

// find returns the open window that starts at start, and where it is or
// belongs among the open ones.
func (t *timeline) find(start oona.Micros) (*window, int) {
	at, found := slices.BinarySearchFunc(t.windows, start, func(w *window, start oona.Micros) int { return cmp.Compare(w.start, start) })
	if !found {
		return nil, at
	}
	return t.windows[at], at
}

// advance moves the watermark as far as the frontier allows, because of the
// record at offset, and reports whether it moved. When every producer is idle,
// it goes just far enough to close what is open, so that whoever comes back
// finds the windows after those open.
func (t *timeline) advance(offset int64, s *spans) bool {
	var to oona.Micros
	switch {
	case len(t.frontier.slots) > 0:
		to = earlier(t.frontier.least, s.outOfOrderness)
	case len(t.windows) > 0:
		to = later(t.windows[len(t.windows)-1].end, s.lateness)
	default:
		return false
	}
	if to <= t.watermark {
		return false
	}
	if t.moved.offset != offset {
		t.moved = move{offset: offset, from: t.watermark}
	}
	t.watermark = to
	return true
}

// watermarkBefore is the watermark before the record at offset.
func (t *timeline) watermarkBefore(offset int64) oona.Micros {
	if t.moved.offset == offset {
		return t.moved.from
	}
	return t.watermark
}

// closed reports whether the watermark has passed a window that ends at end.
func (t *timeline) closed(end oona.Micros, s *spans) bool {
	return later(end, s.lateness) <= t.watermark
}

// takeClosed appends the windows that the watermark has closed to dst, and
// forgets them and their identities.
func (t *timeline) takeClosed(dst []*window, s *spans) []*window {
	n := 0
	for n < len(t.windows) && t.closed(t.windows[n].end, s) {
		for _, id := range t.windows[n].identities {
			delete(t.seen, id)
		}
		n++
	}
	dst = append(dst, t.windows[:n]...)
	t.windows = slices.Delete(t.windows, 0, n)
	if n > 0 && len(t.windows) == 0 {
		t.seen = make(map[identity]folding) // an empty map keeps its memory, a quiet timeline needs none
	}
	return dst
}
