package windows

import (
	"cmp"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
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
	key        timelineKey       // not while it is unresolved
	hash       uint64            // of key
	admitted   int64             // offset of its first record; unknown is less
	frontier   logtime.ActiveSet // of slots: see slotNumber
	watermark  oona.Micros       // unset until the first frame, or the floor
	moved      move
	windows    []*window // open, by start
	openLayers int       // of these windows
	seals      seals
}

// unknown is an offset before all others.
const unknown int64 = -1

// move is the last record that moved a watermark, and from where.
type move struct {
	offset int64
	from   oona.Micros
}

// identity is a frame's own within its window: a repeat has the same.
type identity struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

// folding is where and from which bytes a frame was folded, and how far its
// producer was. With its identity it is what a window keeps of each frame.
type folding struct {
	checksum uint64
	into     *accumulator
	step     int64
	at       oona.Micros // event time
}

// window is an open window of a timeline.
type window struct {
	timeline    *timeline
	configEpoch *configEpoch
	start, end  oona.Micros
	first       logtime.ReplayPoint // the record that opened it
	layers      map[oona.LayerID]*accumulator
	folded      map[identity]folding
}

func newTimeline(hash uint64, watermark oona.Micros) *timeline {
	return &timeline{
		hash:      hash,
		admitted:  unknown,
		frontier:  logtime.NewActiveSet(),
		watermark: watermark,
		moved:     move{offset: unknown},
	}
}

// quiet reports whether nothing would be lost with a timeline but its
// watermark: no window is open, and no producer active.
func (t *timeline) quiet() bool { return len(t.windows) == 0 && t.frontier.Len() == 0 }

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
	to := unset
	if least, active := t.frontier.Least(); active {
		to = earlier(least, s.outOfOrderness)
	} else {
		for _, w := range t.windows {
			to = max(to, w.configEpoch.closes(w.end))
		}
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

// takeClosed appends the windows that the watermark has closed to dst, and
// forgets them and their seals. A window of a later era may close before one of
// an earlier era, whose frames may be later.
func (t *timeline) takeClosed(dst []*window) []*window {
	open := t.windows[:0]
	for _, w := range t.windows {
		if w.configEpoch.closes(w.end) <= t.watermark {
			dst = append(dst, w)
			continue
		}
		open = append(open, w)
	}
	clear(t.windows[len(open):])
	t.windows = open
	if len(t.seals) > 0 {
		t.seals.drop(t.watermark)
	}
	return dst
}
