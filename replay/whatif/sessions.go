package whatif

import (
	"cmp"
	"maps"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// session has the frames of a layer between two gaps. It ends one gap after its last frame.
type session struct {
	start, end oona.Micros
	content    *layer
	folded     map[identity]uint64 // checksums of the frames
}

// sessions has the open sessions of a timeline. A frame merges all sessions that are nearer than the
// gap, and becomes a part of the result. A session closes when the watermark has passed its end by the
// allowed lateness. If a frame comes between the last frame and the end of a closed session and is not
// late itself, it begins another session.
type sessions struct {
	*Engine
	of   map[oona.LayerID][]*session // by layer, in the order of their starts
	open int
}

func (s *sessions) count() int { return s.open }

func (s *sessions) last() (to oona.Micros, open bool) {
	for _, list := range s.of {
		for _, one := range list {
			to, open = max(to, one.end+s.spans.lateness), true
		}
	}
	return to, open
}

func (s *sessions) fold(r *windows.Record, watermark oona.Micros) windows.Outcome {
	f := r.Frame
	list := s.of[f.Layer]
	start, end := f.ObservedAt, f.ObservedAt+s.spans.gap
	from, to := reached(list, start, end)
	if from == to && end+s.spans.lateness <= watermark {
		return windows.Outcome{Verdict: windows.Late, Reason: windows.ReasonLate}
	}
	for _, one := range list[from:to] {
		if checksum, repeated := one.folded[identityOf(f)]; repeated {
			return repeatOf(foldedFrame{checksum, one.content}, r)
		}
	}
	if reason := s.exceeds(list[from:to], f); reason != windows.ReasonNone {
		return windows.Outcome{Verdict: windows.Overflowed, Reason: reason}
	}
	joined := &session{start, end, newLayer(), make(map[identity]uint64)}
	if from < to {
		joined = list[from]
		for _, other := range list[from+1 : to] {
			joined.content.merge(&s.folder, other.content)
			maps.Copy(joined.folded, other.folded)
			joined.start, joined.end = min(joined.start, other.start), max(joined.end, other.end)
		}
		joined.start, joined.end = min(joined.start, start), max(joined.end, end)
	}
	s.open += 1 - (to - from)
	s.layers += 1 - (to - from)
	s.of[f.Layer] = slices.Replace(list, from, to, joined)
	joined.content.add(&s.folder, r)
	joined.folded[identityOf(f)] = r.Checksum
	return windows.Outcome{}
}

// reached returns the range of the sessions that a frame from start to end joins.
func reached(list []*session, start, end oona.Micros) (from, to int) {
	from = len(list)
	for i, one := range list {
		if start < one.end && one.start < end {
			from, to = min(from, i), i+1
		}
	}
	if to == 0 {
		from, _ = slices.BinarySearchFunc(list, start, func(one *session, start oona.Micros) int { return cmp.Compare(one.start, start) })
		to = from
	}
	return from, to
}

// exceeds returns the reason if a frame would exceed a limit.
func (s *sessions) exceeds(joins []*session, f *oona.Frame) windows.Reason {
	if len(joins) == 0 {
		if len(s.of[f.Layer]) == 0 && len(s.of) >= s.settings.Config.MaxLayers {
			return windows.ReasonLayers
		}
		if s.full() {
			return windows.ReasonSealed
		}
		return (*layer)(nil).exceeds(f, &s.settings.Config)
	}
	all := joins[0].content
	if len(joins) > 1 {
		all = newLayer()
		for _, one := range joins {
			all.merge(&s.folder, one.content)
		}
	}
	return all.exceeds(f, &s.settings.Config)
}

func (s *sessions) close(dst []closed, watermark oona.Micros) []closed {
	for id, list := range s.of {
		still := list[:0]
		for _, one := range list {
			if one.end+s.spans.lateness > watermark {
				still = append(still, one)
				continue
			}
			dst = append(dst, closed{layer: id, start: one.start, end: one.end, content: one.content})
			s.open--
			s.layers--
		}
		clear(list[len(still):])
		if s.of[id] = still; len(still) == 0 {
			delete(s.of, id)
		}
	}
	return dst
}
