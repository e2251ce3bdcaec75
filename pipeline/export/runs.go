package export

import (
	"time"

	"github.com/morphogenetic/oona"
)

// runs keeps when each run was last heard of. A run that is silent makes room for
// another. If none is, runs beyond the limit are not kept: their layers are merged, too.
type runs struct {
	limit       int
	silentAfter time.Duration
	kept        time.Duration
	dropped     func(oona.RunID) // is told of runs that are no longer kept
	of          map[oona.RunID]*run
}

type run struct {
	heard      time.Time   // when its latest rollup was appended
	start, end oona.Micros // of its latest windows
}

// runSnapshot is a run at one moment.
type runSnapshot struct {
	id         oona.RunID
	live       bool
	heard      time.Time
	start, end oona.Micros // of its latest windows
	ended      *runEnd     // nil if it has not ended, or nobody has said so
}

// observe takes a rollup of a run, and the time at which it was appended.
func (l *runs) observe(rollup *oona.Rollup, appended, now time.Time) {
	id := rollup.Run
	if id == other || now.Sub(appended) > l.kept {
		return
	}
	r := l.of[id]
	if r == nil {
		if len(l.of) >= l.limit && !l.displace(appended, now) {
			return
		}
		r = new(run)
		l.of[id] = r
	}
	if appended.After(r.heard) {
		r.heard = appended
	}
	r.start, r.end = max(r.start, rollup.Start), max(r.end, rollup.End)
}

// known reports whether a run is kept.
func (l *runs) known(id oona.RunID) bool { return l.of[id] != nil }

// displace removes the run that has been silent for the longest time, if it was last
// heard of before a time. It returns false if there is no such run.
func (l *runs) displace(before, now time.Time) bool {
	var longest oona.RunID
	for id, r := range l.of {
		if now.Sub(r.heard) <= l.silentAfter || !r.heard.Before(before) {
			continue
		}
		if first := l.of[longest]; first == nil || r.heard.Before(first.heard) || r.heard.Equal(first.heard) && id < longest {
			longest = id
		}
	}
	if longest == "" {
		return false
	}
	l.drop(longest)
	return true
}

func (l *runs) drop(id oona.RunID) {
	delete(l.of, id)
	l.dropped(id)
}

// snapshot returns the runs that are kept at now, and forgets the others.
func (l *runs) snapshot(now time.Time) []runSnapshot {
	out := make([]runSnapshot, 0, len(l.of))
	for id, r := range l.of {
		silent := now.Sub(r.heard)
		if silent > l.kept {
			l.drop(id)
			continue
		}
		out = append(out, runSnapshot{id: id, live: silent <= l.silentAfter, heard: r.heard, start: r.start, end: r.end})
	}
	return out
}
