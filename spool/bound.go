package spool

import "sync"

// bound limits the total size of the files of one or several spools, in bytes.
type bound struct {
	most int64

	mu   sync.Mutex
	used int64
}

// take takes bytes if they are free. It returns how many bytes were used before.
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

// add adds to the bytes that are used, even beyond the limit.
func (b *bound) add(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += bytes
}

// account tells the bound how many bytes the spool uses: its segments, and the records that
// wait to be written. The caller holds mu.
func (s *Spool) account() {
	now := s.waiting
	for _, seg := range s.segments {
		now += seg.size
	}
	s.bound.add(now - s.held)
	s.held = now
}
