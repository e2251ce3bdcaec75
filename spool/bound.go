package spool

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// bound limits the total size of the files of one or several spools, in bytes.
type bound struct {
	most int64

	mu      sync.Mutex
	used    int64
	kept    int64 // the part of used in files that were set aside
	spools  []*Spool
	counted time.Time // when the files that were set aside were counted
}

// take counts bytes as used if they are free. Otherwise the error wraps ErrFull, and says how many are
// used.
func (b *bound) take(bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+bytes <= b.most {
		b.used += bytes
		return nil
	}
	if b.kept > 0 {
		return fmt.Errorf("%w: it has %d of %d bytes, of which %d are files quarantine-...; examine these, and delete them or move them to another place", ErrFull, b.used, b.most, b.kept)
	}
	return fmt.Errorf("%w: it has %d of %d bytes", ErrFull, b.used, b.most)
}

// add adds to the number of bytes in use, even if it then exceeds the limit. kept is the part of the
// added bytes in files that were set aside.
func (b *bound) add(bytes, kept int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used, b.kept = b.used+bytes, b.kept+kept
}

// join adds a spool to those that share the bound.
func (b *bound) join(s *Spool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spools = append(b.spools, s)
}

// leave subtracts the bytes of a spool that is closed. The caller must hold the spool's mu.
func (b *bound) leave(s *Spool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used, b.kept = b.used-s.held, b.kept-s.heldKept
	s.held, s.heldKept = 0, 0
	b.spools = slices.DeleteFunc(slices.Clone(b.spools), func(other *Spool) bool { return other == s })
}

// account updates the bytes that the bound counts for the spool: its segments, the files that were
// set aside, and the records that wait to be written. The caller must hold mu.
func (s *Spool) account() {
	now := s.waiting + s.kept
	for _, seg := range s.segments {
		now += seg.size
	}
	s.bound.add(now-s.held, s.kept-s.heldKept)
	s.held, s.heldKept = now, s.kept
}

// recount counts the files that were set aside again, because somebody may have deleted some. It
// does nothing and returns false if the last count is more recent than the given time, or if there
// are no such files.
func (b *bound) recount(every time.Duration) bool {
	b.mu.Lock()
	if b.kept == 0 || time.Since(b.counted) < every {
		b.mu.Unlock()
		return false
	}
	b.counted = time.Now()
	spools := b.spools
	b.mu.Unlock()
	for _, s := range spools {
		if err := s.countKept(); err != nil {
			s.opts.Logger.Warn("the spool could not find out how large its files quarantine-... are, so its size may be wrong", "err", err)
		}
	}
	return true
}
