package ingest

import (
	"sync"
	"time"
)

// throttle lets one event of a kind through in a time, and counts the others of
// that kind: a flood of one kind hides no other. It keeps each kind that it has
// seen, so they must be few.
type throttle struct {
	every time.Duration

	mu    sync.Mutex
	kinds map[string]*throttled
}

type throttled struct {
	next    time.Time
	skipped int
}

// allow reports whether the event may pass, and how many of its kind did not
// before it.
func (t *throttle) allow(kind string, now time.Time) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.kinds[kind]
	if of == nil {
		if t.kinds == nil {
			t.kinds = make(map[string]*throttled)
		}
		of = new(throttled)
		t.kinds[kind] = of
	}
	if now.Before(of.next) {
		of.skipped++
		return 0, false
	}
	skipped, of.skipped = of.skipped, 0
	of.next = now.Add(t.every)
	return skipped, true
}
