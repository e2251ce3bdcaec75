package windows

import (
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
)

// timelines has the timelines of a partition. A commit has only their hashes. After a resume, a
// timeline is unresolved until a record arrives whose run and timeline have that hash. An
// unresolved timeline has a watermark, but no windows and no active producers.
type timelines struct {
	named      map[timelineKey]*timeline
	ordered    []*timeline // resolved timelines, ordered by key
	unresolved map[uint64]*timeline

	// floor is the greatest watermark of any timeline that was forgotten. A
	// timeline that is new or comes back starts there, so no window that has
	// been emitted is opened again.
	floor   oona.Micros
	evicted int64 // timelines that were forgotten since the engine was made
}

func newTimelines() timelines {
	return timelines{named: make(map[timelineKey]*timeline), unresolved: make(map[uint64]*timeline), floor: unset}
}

func (r *timelines) count() int { return len(r.named) + len(r.unresolved) }

// find returns the timeline of a frame, or nil if there is none. An unresolved
// timeline is resolved. The bucket is the current one of the log clock.
func (r *timelines) find(f *oona.Frame, bucket int64) *timeline {
	key := timelineKey{f.Run, f.Timeline}
	if t, known := r.named[key]; known {
		return t
	}
	if len(r.unresolved) == 0 {
		return nil
	}
	t, known := r.unresolved[key.hash()]
	if !known {
		return nil
	}
	delete(r.unresolved, t.hash)
	t.key = key
	t.frontier.Roll(bucket)
	r.add(t)
	return t
}

func (r *timelines) add(t *timeline) {
	r.named[t.key] = t
	at, _ := slices.BinarySearchFunc(r.ordered, t.key, func(t *timeline, k timelineKey) int { return t.key.compare(k) })
	r.ordered = slices.Insert(r.ordered, at, t)
}

// all calls f for each timeline, in no particular order.
func (r *timelines) all(f func(*timeline)) {
	for _, t := range r.ordered {
		f(t)
	}
	for _, t := range r.unresolved {
		f(t)
	}
}

func (r *timelines) hasHash(hash uint64) bool {
	found := false
	r.all(func(t *timeline) { found = found || t.hash == hash })
	return found
}

// oldestQuiet returns the quiet timeline with the smallest watermark. If several have the same
// watermark, it returns the one with the smallest hash. It returns nil if none is quiet.
func (r *timelines) oldestQuiet() *timeline {
	var oldest *timeline
	r.all(func(t *timeline) {
		if t.quiet() && (oldest == nil || t.watermark < oldest.watermark || t.watermark == oldest.watermark && t.hash < oldest.hash) {
			oldest = t
		}
	})
	return oldest
}

func (r *timelines) forget(t *timeline) {
	r.floor = max(r.floor, t.watermark)
	r.evicted++
	if r.unresolved[t.hash] == t {
		delete(r.unresolved, t.hash)
		return
	}
	delete(r.named, t.key)
	r.ordered = slices.DeleteFunc(r.ordered, func(u *timeline) bool { return u == t })
}

// forgetOld forgets the quiet timelines whose watermark is below limit.
func (r *timelines) forgetOld(limit oona.Micros) {
	var old []*timeline // usually nil
	r.all(func(t *timeline) {
		if t.watermark < limit && t.quiet() {
			old = append(old, t)
		}
	})
	for _, t := range old {
		r.forget(t)
	}
}

// admit returns a new timeline for a frame. If the partition is full, the new timeline replaces a
// quiet one. If no timeline is quiet, admit returns the outcome for the frame.
func (e *Engine) admit(r *Record, bucket int64) (*timeline, Outcome) {
	key := timelineKey{r.Frame.Run, r.Frame.Timeline}
	hash := key.hash()
	if e.timelines.hasHash(hash) {
		return nil, Outcome{Overflowed, ReasonTimelines, fmt.Sprintf("another timeline has the same hash, %016x, and a commit could not distinguish them", hash)}
	}
	if e.timelines.count() >= e.cfg.MaxTimelines {
		oldest := e.timelines.oldestQuiet()
		if oldest == nil {
			return nil, Outcome{Overflowed, ReasonTimelines, fmt.Sprintf("the partition has %d timelines, as many as it admits, and all of them are active", e.timelines.count())}
		}
		e.timelines.forget(oldest)
	}
	t := newTimeline(hash, e.timelines.floor)
	t.key, t.admitted = key, r.Offset
	t.frontier.Roll(bucket)
	e.timelines.add(t)
	return t, Outcome{}
}

// hash identifies a timeline in commits. It is a part of their format.
func (k timelineKey) hash() uint64 { return hashPair(string(k.run), string(k.id)) }

// hashPair is FNV-1a over two texts with a zero byte between them, which no id has,
// followed by the finalizer of MurmurHash3, because FNV's low bits mix badly.
func hashPair(a, b string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := 0; i < len(a); i++ {
		h = (h ^ uint64(a[i])) * prime
	}
	h *= prime
	for i := 0; i < len(b); i++ {
		h = (h ^ uint64(b[i])) * prime
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// slotNumber distributes (producer, path) pairs over n slots. The result must depend only on the pair
// and never change, because the rollups of a log depend on it.
func slotNumber(producer oona.ProducerID, path string, n int) int {
	return int(hashPair(string(producer), path) % uint64(n))
}
