package ingest

import (
	"sync"
	"time"
)

// throttle lets one log line of each kind pass in a period, and counts the others. Frequent lines
// of one kind do not suppress another kind. It keeps every kind that it has seen, so there must be
// few.
type throttle struct {
	every time.Duration

	mu    sync.Mutex
	kinds map[string]*throttled
}

type throttled struct {
	next    time.Time
	skipped int
}

// allow reports whether a line may pass, and how many lines of its kind were suppressed since the
// last one.
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
