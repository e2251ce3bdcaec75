package windows

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
)

// seal is a stretch of event time, [start, end), each window of which admits no
// layer beyond the first few, because the engine was full when one more came.
// Whoever reads the log from the middle cannot know what else was open then:
// seals are kept in the commit instead.
type seal struct {
	start, end oona.Micros // of windows
	layers     int         // that each of them has, and may have
}

// seals of a timeline, by start. Neighbours with equally many layers are one:
// the seals of a full engine are mostly of windows that could not open.
type seals []seal

// limit returns how many layers the window that starts at start may have, if it
// is sealed.
func (s seals) limit(start oona.Micros) (layers int, sealed bool) {
	at := s.after(start)
	if at == 0 || s[at-1].end <= start {
		return 0, false
	}
	return s[at-1].layers, true
}

// after returns where in s those begin that start after start.
func (s seals) after(start oona.Micros) int {
	at, found := slices.BinarySearchFunc(s, start, func(e seal, start oona.Micros) int { return cmp.Compare(e.start, start) })
	if found {
		at++
	}
	return at
}

// add seals the window [start, end), which is not.
func (s *seals) add(start, end oona.Micros, layers int) {
	at := s.after(start)
	before := at > 0 && (*s)[at-1].end == start && (*s)[at-1].layers == layers
	after := at < len(*s) && (*s)[at].start == end && (*s)[at].layers == layers
	switch {
	case before && after:
		(*s)[at-1].end = (*s)[at].end
		*s = slices.Delete(*s, at, at+1)
	case before:
		(*s)[at-1].end = end
	case after:
		(*s)[at].start = start
	default:
		*s = slices.Insert(*s, at, seal{start, end, layers})
	}
}

// drop forgets what is before the start of the first window that has not
// closed.
func (s *seals) drop(first oona.Micros) {
	n := 0
	for n < len(*s) && (*s)[n].end <= first {
		n++
	}
	*s = slices.Delete(*s, 0, n)
	if len(*s) > 0 {
		(*s)[0].start = max((*s)[0].start, first)
	}
}

// windows is how many windows of a length are sealed.
func (s seals) windows(length oona.Micros) int64 {
	n := int64(0)
	for i := range s {
		n += int64(s[i].end-s[i].start) / int64(length)
	}
	return n
}

// seal says whether the window of t at [start, end), with k layers, may have one
// more. If the partition or the timeline has as many accumulators as it admits,
// the window is sealed: it gets no further layer, also when there is room
// again. A replay knows the seals and does not look at the room, which depends
// on windows that are not replayed.
func (e *Engine) seal(t *timeline, start, end oona.Micros, k int) Outcome {
	if limit, sealed := t.seals.limit(start); sealed {
		if k < limit { // in a replay
			return Outcome{}
		}
		return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("the window was sealed at %d layers when too many were open", limit)}
	}
	if e.replaying || e.openLayers < e.cfg.MaxAccumulators && t.openLayers < e.cfg.MaxTimelineAccumulators {
		return Outcome{}
	}
	t.seals.add(start, end, k)
	return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("%d layers' windows are open, %d of them the timeline's; at most %d and %d may be: this window is sealed with %d layers", e.openLayers, t.openLayers, e.cfg.MaxAccumulators, e.cfg.MaxTimelineAccumulators, k)}
}
