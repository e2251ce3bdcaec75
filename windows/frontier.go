package windows

import (
	"math"

	"github.com/morphogenetic/oona"
)

// horizonBuckets is how many buckets of the log clock the idle horizon spans.
const horizonBuckets = 4

// unset is an event time before all others.
const unset oona.Micros = math.MinInt64

// frontier knows how far each producer of a timeline has come on each path. A
// slot's frontier is the latest event time that the horizon's buckets of the
// log clock saw, and no older one: whoever reads the log from the beginning of
// the horizon comes to the same.
type frontier struct {
	bucket   int64       // of the log clock, up to which the slots are rolled
	position map[int]int // of an occupied slot in slots, by its number
	slots    []slot      // the active ones, in no order
	least    oona.Micros // the least reach, while there is an active slot
}

// nothingSeen is what no bucket has seen anything of.
var nothingSeen = [horizonBuckets + 1]oona.Micros{unset, unset, unset, unset, unset}

// slot is the frontier of those (producer, path) pairs whose hash gives its
// number.
type slot struct {
	number int
	reach  oona.Micros                     // the latest of latest
	latest [horizonBuckets + 1]oona.Micros // event time, by bucket modulo its length; unset: nothing seen
}

// slotNumber spreads pairs over n slots. It is a function of the pair alone.
func slotNumber(producer oona.ProducerID, path string, n int) int {
	return int(hashPair(string(producer), path) % uint64(n))
}

// observe notes a frame of a slot and reports whether least changed.
func (f *frontier) observe(number int, at oona.Micros) bool {
	bucket := f.bucket % (horizonBuckets + 1)
	i, occupied := f.position[number]
	if !occupied {
		s := slot{number: number, reach: at, latest: nothingSeen}
		s.latest[bucket] = at
		f.position[number] = len(f.slots)
		f.slots = append(f.slots, s)
		if len(f.slots) == 1 || at < f.least {
			f.least = at
			return true
		}
		return false
	}
	s := &f.slots[i]
	s.latest[bucket] = max(s.latest[bucket], at)
	if at <= s.reach {
		return false
	}
	wasLeast := s.reach == f.least
	s.reach = at
	return wasLeast && f.findLeast()
}

// roll goes on to a bucket of the log clock and drops the slots that have
// become idle.
func (f *frontier) roll(bucket int64) {
	if bucket == f.bucket {
		return
	}
	first := max(f.bucket+1, bucket-horizonBuckets)
	for i := range f.slots {
		for b := first; b <= bucket; b++ {
			f.slots[i].latest[b%(horizonBuckets+1)] = unset
		}
	}
	f.bucket = bucket
	f.settle()
}

// rescale goes on with buckets of another width, up to the current one of which
// the slots are rolled.
func (f *frontier) rescale(c rescaling) {
	for i := range f.slots {
		s := &f.slots[i]
		scaled := nothingSeen
		for b := max(0, f.bucket-horizonBuckets); b <= f.bucket; b++ {
			if number, kept := c.bucket(b); kept {
				to := &scaled[number%(horizonBuckets+1)]
				*to = max(*to, s.latest[b%(horizonBuckets+1)])
			}
		}
		s.latest = scaled
	}
	f.bucket = int64(c.now / c.to)
	f.settle()
}

// settle sets what follows from the slots' buckets: it drops the slots that have
// become idle.
func (f *frontier) settle() {
	for i := 0; i < len(f.slots); {
		s := &f.slots[i]
		s.reach = unset
		for _, at := range s.latest {
			s.reach = max(s.reach, at)
		}
		if s.reach != unset {
			i++
			continue
		}
		delete(f.position, s.number)
		last := len(f.slots) - 1
		if i != last {
			f.slots[i] = f.slots[last]
			f.position[f.slots[i].number] = i
		}
		f.slots = f.slots[:last]
	}
	f.findLeast()
}

// findLeast sets least and reports whether it changed.
func (f *frontier) findLeast() bool {
	if len(f.slots) == 0 {
		return false
	}
	before := f.least
	f.least = f.slots[0].reach
	for i := range f.slots {
		f.least = min(f.least, f.slots[i].reach)
	}
	return f.least != before
}
