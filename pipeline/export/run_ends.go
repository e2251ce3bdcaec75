package export

import (
	"time"

	"github.com/morphogenetic/oona"
)

// runEnds keeps how runs have ended, as their trainers said. It is read apart from the rollups, so
// it keeps the ends of runs that are not known yet, too: as many as there may be runs, and for as
// long as a run is kept.
type runEnds struct {
	limit int
	kept  time.Duration
	of    map[oona.RunID]*runEnd
}

// runEnd is the end of a run with the latest time.
type runEnd struct {
	At      time.Time `json:"at"` // by the trainer's clock
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`
	Step    int64     `json:"step,omitempty"`

	at       oona.Micros // At
	appended time.Time
}

// observe takes the end of a run, and the time at which it was appended. It returns false if the
// end is not kept because the limit is reached. The function known says whether rollups of a run
// are known: its end does not make room for another, and always has room itself.
func (l *runEnds) observe(e *oona.RunEnd, appended, now time.Time, known func(oona.RunID) bool) bool {
	if !known(e.Run) && now.Sub(appended) > l.kept {
		return true // as with rollups of runs that are not kept any more
	}
	before := l.of[e.Run]
	if before != nil && before.at > e.At {
		return true
	}
	if before == nil && len(l.of) >= 2*l.limit { // at most limit runs are known
		first := l.earliest(known)
		if first == "" || !known(e.Run) && !l.of[first].appended.Before(appended) {
			return false
		}
		delete(l.of, first)
	}
	l.of[e.Run] = &runEnd{At: e.At.Time().UTC(), Outcome: e.Outcome.String(), Reason: e.Reason, Step: e.Step, at: e.At, appended: appended}
	return true
}

// earliest returns the run that is not known and whose end was appended first, or "".
func (l *runEnds) earliest(known func(oona.RunID) bool) (earliest oona.RunID) {
	for id, e := range l.of {
		if known(id) {
			continue
		}
		if first := l.of[earliest]; first == nil || e.appended.Before(first.appended) || e.appended.Equal(first.appended) && id < earliest {
			earliest = id
		}
	}
	return earliest
}

// forget removes the ends of runs that are neither known nor kept any more.
func (l *runEnds) forget(now time.Time, known func(oona.RunID) bool) {
	for id, e := range l.of {
		if !known(id) && now.Sub(e.appended) > l.kept {
			delete(l.of, id)
		}
	}
}

// after returns the end of a run, or nil if the run has not ended or was resumed: if a window
// began after its end. The latest window of the run began at start.
func (l *runEnds) after(id oona.RunID, start oona.Micros) *runEnd {
	if e := l.of[id]; e != nil && e.at >= start {
		return e
	}
	return nil
}

// End takes the end of a run, and the time at which it was appended. It returns false if it is not
// kept because there are too many.
func (s *Stage) End(e *oona.RunEnd, appended, now time.Time) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.store.ends.observe(e, appended, now, s.store.runs.known)
}
