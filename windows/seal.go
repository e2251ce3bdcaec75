package windows

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
)

// seal is an interval of event time, [start, end), whose windows get no further layers, because the
// engine was full when another layer appeared. A reader that starts in the middle of the log cannot
// know which other windows were open then, so seals are kept in the commit.
type seal struct {
	configEpoch *configEpoch
	start, end  oona.Micros // start of the first window, and end of the last one
	layers      int         // number of layers that each of these windows has, and may have
}

// seals are the seals of a timeline, ordered by start. Adjacent ones with the same number
// of layers are merged, because most seals of a full engine are for windows that could not
// open.
type seals []seal

// limit returns the number of layers that the window starting at start may have, and whether
// it is sealed.
func (s seals) limit(start oona.Micros) (layers int, sealed bool) {
	at := s.after(start)
	if at == 0 || s[at-1].end <= start {
		return 0, false
	}
	return s[at-1].layers, true
}

// after returns the index of the first seal that starts after start.
func (s seals) after(start oona.Micros) int {
	at, found := slices.BinarySearchFunc(s, start, func(e seal, start oona.Micros) int { return cmp.Compare(e.start, start) })
	if found {
		at++
	}
	return at
}

// add seals a window that is not sealed.
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

// drop forgets the seals of windows that a watermark has closed.
func (s *seals) drop(watermark oona.Micros) {
	for i := range *s {
		e := &(*s)[i]
		e.start = max(e.start, e.configEpoch.firstOpen(watermark))
	}
	*s = slices.DeleteFunc(*s, func(e seal) bool { return e.end <= e.start })
}

// dropConfigEpoch forgets the seals of a configuration epoch.
func (s *seals) dropConfigEpoch(c *configEpoch) {
	*s = slices.DeleteFunc(*s, func(e seal) bool { return e.configEpoch == c })
}

// windows returns how many windows are sealed.
func (s seals) windows() int64 {
	n := int64(0)
	for i := range s {
		n += int64(s[i].end-s[i].start) / int64(s[i].configEpoch.spans.length)
	}
	return n
}

// checkSeal decides whether the window of t at start, with the given number of layers,
// may get one more. If the partition or the timeline has its maximum number of accumulators, the
// window is sealed: it gets no further layer, even when other windows have closed. A replay uses the
// seals of the commit instead of counting accumulators, because it does not replay all windows.
func (e *Engine) checkSeal(t *timeline, c *configEpoch, start, end oona.Micros, layers int) Outcome {
	if limit, sealed := t.seals.limit(start); sealed {
		if layers < limit { // possible in a replay only
			return Outcome{}
		}
		return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("the window was sealed at %d layers when too many were open", limit)}
	}
	if e.replaying || e.openLayers < e.cfg.MaxAccumulators && t.openLayers < e.cfg.MaxTimelineAccumulators {
		return Outcome{}
	}
	t.seals.add(c, start, end, layers)
	return Outcome{Overflowed, ReasonSealed, fmt.Sprintf("%d layers' windows are open, %d of them the timeline's; at most %d and %d may be: this window is sealed with %d layers", e.openLayers, t.openLayers, e.cfg.MaxAccumulators, e.cfg.MaxTimelineAccumulators, layers)}
}
