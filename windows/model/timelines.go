package model

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// see records that a frame of a producer has come on a path.
func (m *Model) see(t *timeline, r *windows.Record) {
	path := r.Path
	if m.Mutant == NoPath {
		path = ""
	}
	slot := int(hash(string(r.Frame.Producer), path) % uint64(m.cfg.FrontierSlots))
	s := sighting{slot, m.bucket()}
	if at, seen := t.seen[s]; !seen || int64(r.Frame.ObservedAt) > at {
		t.seen[s] = int64(r.Frame.ObservedAt)
	}
}

// active returns how far each slot has come that is active.
func (m *Model) active(t *timeline) map[int]int64 {
	reach := map[int]int64{}
	for s, at := range t.seen {
		if s.bucket < m.bucket()-4 && m.Mutant != NoIdleness {
			delete(t.seen, s) // it never counts again
			continue
		}
		if before, known := reach[s.slot]; !known || at > before {
			reach[s.slot] = at
		}
	}
	return reach
}

// raise moves a timeline's watermark as far as it may go.
func (m *Model) raise(t *timeline) {
	reach := m.active(t)
	if len(reach) > 0 {
		slowest, fastest := int64(math.MaxInt64), int64(math.MinInt64)
		for _, at := range reach {
			slowest, fastest = min(slowest, at), max(fastest, at)
		}
		to := slowest
		if m.Mutant == MaximumTimestamp {
			to = fastest
		}
		t.watermark = max(t.watermark, to-m.cfg.OutOfOrderness.Microseconds())
		return
	}
	for start := range t.panes {
		_, _, closes := m.window(start)
		t.watermark = max(t.watermark, closes)
	}
	if m.Mutant == IdleToTheEnd {
		t.watermark = max(t.watermark, m.last)
	}
}

// quiet reports whether a timeline has no open window and no active producer.
func (m *Model) quiet(t *timeline) bool { return len(t.panes) == 0 && len(m.active(t)) == 0 }

// forgetOld forgets the quiet timelines for which no frame can come that would not
// be stale.
func (m *Model) forgetOld() {
	limit := m.latest - m.retention()
	for _, t := range slices.Clone(m.timelines) {
		if t.watermark < limit && m.quiet(t) && m.Mutant != NoForgetting {
			m.forget(t)
			m.Events.Forgotten++
			if m.inReach() > 1 {
				m.Events.ForgottenBetween++
			}
		}
	}
}

func (m *Model) forget(t *timeline) {
	if m.Mutant != NoFloor {
		m.floor = max(m.floor, t.watermark)
	}
	m.timelines = slices.DeleteFunc(m.timelines, func(u *timeline) bool { return u == t })
}

// admit returns the timeline of a frame, nil if it is new and cannot be admitted.
func (m *Model) admit(f *oona.Frame) *timeline {
	for _, t := range m.timelines {
		if t.run == f.Run && t.id == f.Timeline {
			return t
		}
	}
	if len(m.timelines) >= m.cfg.MaxTimelines {
		if len(m.timelines) > m.cfg.MaxTimelines {
			m.Events.FewerRoom++
		}
		quiet := slices.DeleteFunc(slices.Clone(m.timelines), func(t *timeline) bool { return !m.quiet(t) })
		if len(quiet) == 0 || m.Mutant == NoEviction {
			m.Events.Overflowed++
			return nil
		}
		m.forget(slices.MinFunc(quiet, func(t, u *timeline) int {
			return cmp.Or(cmp.Compare(t.watermark, u.watermark), cmp.Compare(t.hash(), u.hash()))
		}))
		m.Events.Evicted++
	}
	t := &timeline{
		run: f.Run, id: f.Timeline, watermark: m.floor, before: m.floor,
		seen: map[sighting]int64{}, panes: map[int64]*pane{}, sealed: map[int64]bool{}, rejected: map[identity]bool{},
	}
	m.timelines = append(m.timelines, t)
	return t
}

// hash orders timelines with equal watermarks.
func (t *timeline) hash() uint64 { return hash(string(t.run), string(t.id)) }

// hash is FNV-1a of two texts with a zero byte between them, finished as in
// MurmurHash3. The protocol says so for slots and timelines.
func hash(a, b string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range []byte(a + "\x00" + b) {
		h ^= uint64(c)
		h *= 0x100000001b3
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
