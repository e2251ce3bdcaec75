package ingest

import (
	"sync"
	"time"
)

// throttle lets one event through in a time, and counts the others.
type throttle struct {
	every time.Duration

	mu      sync.Mutex
	next    time.Time
	skipped int
}

// allow reports whether the event may pass, and how many did not before it.
func (t *throttle) allow(now time.Time) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.skipped++
		return 0, false
	}
	skipped, t.skipped = t.skipped, 0
	t.next = now.Add(t.every)
	return skipped, true
}
