package logtime

import (
	"math"

	"github.com/morphogenetic/oona"
)

// ActiveSet holds the members that were seen within the idle horizon, and the
// reach of each. A member is a number that the caller chooses. Its reach is the
// latest event time at which it was seen within the horizon. What was seen before
// the horizon does not count, so a reader that starts at the beginning of the
// horizon gets the same set.
type ActiveSet struct {
	bucket   int64       // the bucket of the log clock that s was last rolled to
	position map[int]int // the index of each member in members, by its number
	members  []member    // the active members, in no order
	least    oona.Micros // the least reach, while there is an active member
}

type member struct {
	number int
	reach  oona.Micros             // the latest of latest
	latest [remembered]oona.Micros // event time, by bucket modulo remembered; unseen: not in that bucket
}

// unseen is an event time before all others.
const unseen oona.Micros = math.MinInt64

// nowhere holds the event times of a member that was seen in no bucket.
var nowhere = [remembered]oona.Micros{unseen, unseen, unseen, unseen, unseen}

// NewActiveSet returns an empty set, with the log clock in bucket 0.
func NewActiveSet() ActiveSet { return ActiveSet{position: make(map[int]int)} }

// Len returns the number of active members.
func (s *ActiveSet) Len() int { return len(s.members) }

// Least returns the least reach of any active member, and false if none is
// active.
func (s *ActiveSet) Least() (reach oona.Micros, active bool) {
	return s.least, len(s.members) > 0
}

// Observe records that a member was seen in the current bucket, at an event time.
// It reports whether Least has changed.
func (s *ActiveSet) Observe(number int, at oona.Micros) bool {
	bucket := s.bucket % remembered
	i, active := s.position[number]
	if !active {
		m := member{number: number, reach: at, latest: nowhere}
		m.latest[bucket] = at
		s.position[number] = len(s.members)
		s.members = append(s.members, m)
		if len(s.members) == 1 || at < s.least {
			s.least = at
			return true
		}
		return false
	}
	m := &s.members[i]
	m.latest[bucket] = max(m.latest[bucket], at)
	if at <= m.reach {
		return false
	}
	wasLeast := m.reach == s.least
	m.reach = at
	return wasLeast && s.findLeast()
}

// Roll advances to a bucket of the log clock and drops the members that have
// become idle.
func (s *ActiveSet) Roll(bucket int64) {
	if bucket == s.bucket {
		return
	}
	first := max(s.bucket+1, bucket-BucketsPerHorizon)
	for i := range s.members {
		for b := first; b <= bucket; b++ {
			s.members[i].latest[b%remembered] = unseen
		}
	}
	s.bucket = bucket
	s.dropIdle()
}

// Rescale converts s to buckets of another width. The set must have been rolled to
// the current bucket of the old width.
func (s *ActiveSet) Rescale(c Rescaling) {
	for i := range s.members {
		m := &s.members[i]
		scaled := nowhere
		for b := max(0, s.bucket-BucketsPerHorizon); b <= s.bucket; b++ {
			if number, kept := c.bucket(b); kept {
				to := &scaled[number%remembered]
				*to = max(*to, m.latest[b%remembered])
			}
		}
		m.latest = scaled
	}
	s.bucket = int64(c.Now / c.To)
	s.dropIdle()
}

// dropIdle computes each member's reach from its buckets, and drops the members
// that were seen in none of them.
func (s *ActiveSet) dropIdle() {
	for i := 0; i < len(s.members); {
		m := &s.members[i]
		m.reach = unseen
		for _, at := range m.latest {
			m.reach = max(m.reach, at)
		}
		if m.reach != unseen {
			i++
			continue
		}
		delete(s.position, m.number)
		last := len(s.members) - 1
		if i != last {
			s.members[i] = s.members[last]
			s.position[s.members[i].number] = i
		}
		s.members = s.members[:last]
	}
	s.findLeast()
}

// findLeast sets least and reports whether it changed.
func (s *ActiveSet) findLeast() bool {
	if len(s.members) == 0 {
		return false
	}
	before := s.least
	s.least = s.members[0].reach
	for i := range s.members {
		s.least = min(s.least, s.members[i].reach)
	}
	return s.least != before
}
