package ingest

import (
	"sync"
	"time"
)

// throttle lets one event of each kind pass in a period, and counts the others. Frequent
// events of one kind do not hide another kind. It keeps every kind that it has seen, so
// there must be few.
type throttle struct {
	every time.Duration

	mu    sync.Mutex
	kinds map[string]*throttled
}

type throttled struct {
	next    time.Time
	skipped int
}

// allow reports whether an event may pass, and how many events of its kind did not pass
// since the last that did.
func (t *throttle) allow(kind string, now time.Time) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.kinds[kind]
	if of == nil {
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
