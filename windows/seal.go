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
	configEpoch *configEpoch
	start, end  oona.Micros // of windows
	layers      int         // that each of them has, and may have
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

// add seals a window, which is not.
func (s *seals) add(epoch *configEpoch, start, end oona.Micros, layers int) {
	at := s.after(start)
	alike := func(e *seal) bool { return e.configEpoch == epoch && e.layers == layers }
	before := at > 0 && (*s)[at-1].end == start && alike(&(*s)[at-1])
	after := at < len(*s) && (*s)[at].start == end && alike(&(*s)[at])
	switch {
	case before && after:
		(*s)[at-1].end = (*s)[at].end
		*s = slices.Delete(*s, at, at+1)
	case before:
		(*s)[at-1].end = end
	case after:
		(*s)[at].start = start
	default:
		*s = slices.Insert(*s, at, seal{epoch, start, end, layers})
	}
}

// drop forgets the windows that a watermark has closed.
func (s *seals) drop(watermark oona.Micros) {
	for i := range *s {
		e := &(*s)[i]
		e.start = max(e.start, e.configEpoch.firstOpen(watermark))
	}
	*s = slices.DeleteFunc(*s, func(e seal) bool { return e.end <= e.start })
}

// dropConfigEpoch forgets the windows of an era.
func (s *seals) dropConfigEpoch(a *configEpoch) {
	*s = slices.DeleteFunc(*s, func(e seal) bool { return e.configEpoch == a })
}

// windows is how many windows are sealed.
func (s seals) windows() int64 {
	n := int64(0)
	for i := range s {
		n += int64(s[i].end-s[i].start) / int64(s[i].configEpoch.spans.length)
	}
	return n
}

// seal says whether the window of t at start, with k layers, may have one
// more. If the partition or the timeline has as many accumulators as it admits,
// the window is sealed: it gets no further layer, also when there is room
// again. A replay knows the seals and does not look at the room, which depends
// on windows that are not replayed.
func (e *Engine) checkSeal(t *timeline, a *configEpoch, start, end oona.Micros, k int) Outcome {
	if limit, sealed := t.seals.limit(start); sealed {
		if k < limit { // in a replay
			return Outcome{}
		}
		return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("the window was sealed at %d layers when too many were open", limit)}
	}
	if e.replaying || e.openLayers < e.cfg.MaxAccumulators && t.openLayers < e.cfg.MaxTimelineAccumulators {
		return Outcome{}
	}
	t.seals.add(a, start, end, k)
	return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("%d layers' windows are open, %d of them the timeline's; at most %d and %d may be: this window is sealed with %d layers", e.openLayers, t.openLayers, e.cfg.MaxAccumulators, e.cfg.MaxTimelineAccumulators, k)}
}
