package verdict

import (
	"slices"

	"github.com/morphogenetic/oona"
)

const (
	upAfter   = 2 // windows in a row with a reason until it stands, and with a critical one until it is critical
	downAfter = 3 // windows in a row without a reason until it falls
)

// standing is a reason that stands, or may soon stand.
type standing struct {
	Reason              // the reason in the last window that had it
	stands        Level // level at which the reason stands; OK: it does not stand yet
	up, critical  uint8 // windows in a row that had the reason, and that had it with the level Critical
	calm          uint8 // windows in a row without the reason
	now           bool  // whether the current window has the reason
	criticalSince oona.Micros
}

// add records that the current window has a reason.
func (s *standing) add(r Reason, start oona.Micros) {
	since := s.Since
	if s.up == 0 && s.stands == OK {
		since = start
	}
	s.Reason, s.now, s.calm = r, true, 0
	s.Since = since
	s.up = min(s.up+1, upAfter)
	if r.Level < Critical {
		s.critical = 0
	} else {
		if s.critical == 0 && s.stands < Critical {
			s.criticalSince = start
		}
		s.critical = min(s.critical+1, upAfter)
	}
	switch {
	case s.critical == upAfter || r.Kind == Infinite:
		s.stands = Critical
	case s.up == upAfter:
		s.stands = max(s.stands, Warning)
	}
}

// rest records that the current window does not have the reason. It reports whether the
// reason has fallen.
func (s *standing) rest() (fallen bool) {
	s.up, s.critical = 0, 0
	s.calm++
	return s.calm >= downAfter
}

// truth says whether something is true, and since when.
type truth struct {
	is    bool
	since oona.Micros
}

func (t *truth) set(is bool, since oona.Micros) {
	if is != t.is {
		t.is, t.since = is, since
	}
}

// or says whether t or u is true, and since when. If both are false, it says since when both are.
func (t truth) or(u truth) truth {
	switch {
	case t.is && u.is:
		return truth{true, min(t.since, u.since)}
	case t.is:
		return t
	case u.is:
		return u
	}
	return truth{false, max(t.since, u.since)}
}

// reasons has the reasons of one group of a layer.
type reasons struct {
	all     []standing
	warning truth // whether a reason stands
	worst   truth // whether a critical reason stands
}

// add records that the window that begins at start has a reason.
func (rs *reasons) add(r Reason, start oona.Micros) {
	i := slices.IndexFunc(rs.all, func(s standing) bool { return s.Kind == r.Kind && s.Metric == r.Metric })
	if i < 0 {
		i = len(rs.all)
		rs.all = append(rs.all, standing{})
	}
	rs.all[i].add(r, start)
}

// settle ends a window, after all its reasons have been added.
func (rs *reasons) settle(end oona.Micros) {
	warning, worst := truth{since: end}, truth{since: end}
	keep := rs.all[:0]
	for _, s := range rs.all {
		if !s.now && s.rest() {
			continue
		}
		s.now = false
		if s.stands >= Warning {
			warning = warning.or(truth{true, s.Since})
		}
		if s.stands == Critical {
			worst = worst.or(truth{true, s.criticalSince})
		}
		keep = append(keep, s)
	}
	clear(rs.all[len(keep):])
	rs.all = keep
	rs.warning.set(warning.is, warning.since)
	rs.worst.set(worst.is, worst.since)
}

// appendTo appends the reasons that stand.
func (rs *reasons) appendTo(dst []Reason) []Reason {
	for i := range rs.all {
		if s := &rs.all[i]; s.stands != OK {
			r := s.Reason
			r.Level = s.stands
			dst = append(dst, r)
		}
	}
	return dst
}
