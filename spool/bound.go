package spool

import "sync"

// bound is the most that the files of one spool or of several may have together, in bytes.
type bound struct {
	most int64

	mu   sync.Mutex
	used int64
}

// take takes some bytes, if there are so many. It returns how many were used before.
func (b *bound) take(bytes int64) (used int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	used = b.used
	if used+bytes > b.most {
		return used, false
	}
	b.used += bytes
	return used, true
}

// add adds some bytes, even if there are not so many.
func (b *bound) add(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += bytes
}

// account tells the bound how much the spool has: its segments, and what waits to be written.
// The caller holds mu.
func (s *Spool) account() {
	now := s.waiting
	for _, seg := range s.segments {
		now += seg.size
	}
	s.bound.add(now - s.held)
	s.held = now
}
