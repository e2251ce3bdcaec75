package windows

import (
	"cmp"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// timelineKey identifies a timeline of the partition.
type timelineKey struct {
	run oona.RunID
	id  oona.TimelineID
}

func (k timelineKey) compare(l timelineKey) int {
	return cmp.Or(strings.Compare(string(k.run), string(l.run)), strings.Compare(string(k.id), string(l.id)))
}

// timeline is a run, or a rank of a run that owns its layers. It has one watermark.
type timeline struct {
	key        timelineKey       // zero while the timeline is unresolved
	hash       uint64            // hash of key
	admitted   int64             // offset of its first record, or unknown
	frontier   logtime.ActiveSet // frontiers by slot: see slotNumber
	watermark  oona.Micros       // until the first frame, the floor or unset
	moved      move
	windows    []*window // open windows, ordered by start
	openLayers int       // number of layers in these windows
	seals      seals
}

// unknown is an offset before all others.
const unknown int64 = -1

// move is the last record that moved a watermark, and the watermark before it.
type move struct {
	offset int64
	from   oona.Micros
}

// identity identifies a frame within its window. A repeat has the same identity.
type identity struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

// folding is what a window keeps about each frame besides its identity: the checksum of the frame's
// bytes, the place where it was folded, and the progress of its producer.
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

// quiet reports whether no window is open and no producer is active. Then only the watermark is lost
// if the timeline is forgotten.
func (t *timeline) quiet() bool { return len(t.windows) == 0 && t.frontier.Len() == 0 }

// find returns the open window that starts at start, and its position among the open
// windows, or the position where it belongs.
func (t *timeline) find(start oona.Micros) (*window, int) {
	at, found := slices.BinarySearchFunc(t.windows, start, func(w *window, start oona.Micros) int { return cmp.Compare(w.start, start) })
	if !found {
		return nil, at
	}
	return t.windows[at], at
}

// advance moves the watermark at the record at offset, as far as the frontier allows,
// and reports whether it moved. When every producer is idle, it moves just far enough
// to close the open windows, so that a producer which comes back finds the later ones
// open.
func (t *timeline) advance(offset int64, s *spans) bool {
	to := unset
	if least, active := t.frontier.Least(); active {
		to = earlier(least, s.outOfOrderness)
	} else {
		for _, w := range t.windows {
			to = max(to, w.configEpoch.closesAt(w.end))
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

// watermarkBefore returns the watermark before the record at offset.
func (t *timeline) watermarkBefore(offset int64) oona.Micros {
	if t.moved.offset == offset {
		return t.moved.from
	}
	return t.watermark
}

// takeClosed appends the windows that the watermark has closed to dst, and forgets
// them and their seals. A window of a later configuration epoch may close before one
// of an earlier epoch that allows more lateness.
func (t *timeline) takeClosed(dst []*window) []*window {
	open := t.windows[:0]
	for _, w := range t.windows {
		if w.configEpoch.closesAt(w.end) <= t.watermark {
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
