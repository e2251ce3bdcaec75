package ingest

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// budget is the memory that may be in use by what has come and is not settled,
// in bytes of capacity. It is divided into shares. Each has some that is its own;
// the rest goes to whoever asks first.
type budget struct {
	total int64

	mu     sync.Mutex
	shares []*share
	freed  chan struct{} // closed when some is free again; nil: nobody waits
}

// share is what one way into ingest uses of the budget.
type share struct {
	of    *budget
	least int64
	turn  chan struct{} // whoever has it is the next to get some: the first that waits
	used  int64
}

func newBudget(total int64) *budget { return &budget{total: total} }

// share adds a share, of which least bytes are its own.
func (b *budget) share(least int64) *share {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &share{of: b, least: least, turn: make(chan struct{}, 1)}
	b.shares = append(b.shares, s)
	return s
}

// most is what a share can have when no other uses any.
func (s *share) most() int64 {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	most := s.of.total
	for _, other := range s.of.shares {
		if other != s {
			most -= other.least
		}
	}
	return most
}

// try takes n bytes, or none.
func (s *share) try(n int64) bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.fits(n)
}

func (s *share) fits(n int64) bool {
	all := max(s.used+n, s.least)
	for _, other := range s.of.shares {
		if other != s {
			all += max(other.used, other.least)
		}
	}
	if all > s.of.total {
		return false
	}
	s.used += n
	return true
}

// wait takes n bytes, at most least, once they are free and those that came
// before have theirs. It returns false when one of the contexts ends first.
func (s *share) wait(session, claim context.Context, n int64) bool {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-session.Done():
		return false
	case <-claim.Done():
		return false
	}
	for {
		s.of.mu.Lock()
		fits := s.fits(n)
		if !fits && s.of.freed == nil {
			s.of.freed = make(chan struct{})
		}
		freed := s.of.freed
		s.of.mu.Unlock()
		if fits {
			return true
		}
		select {
		case <-freed:
		case <-session.Done():
			return false
		case <-claim.Done():
			return false
		}
	}
}

// force takes n bytes, even beyond the budget.
func (s *share) force(n int64) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.used += n
}

// free gives n bytes back.
func (s *share) free(n int64) {
	if n == 0 {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.used -= n
	if s.of.freed != nil {
		close(s.of.freed)
		s.of.freed = nil
	}
}

func (s *share) inUse() int64 {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.used
}

// gauge shows how much is in use by what.
func (s *share) gauge(by string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_memory_bytes", Help: "Memory in use by what has come and is not settled: requests with frames, tensors that are sent by themselves, records of the raw topic.",
		ConstLabels: prometheus.Labels{"by": by},
	}, func() float64 { return float64(s.inUse()) })
}

// lease is what one request, or one record of the raw topic, uses of a share. It
// is for one goroutine at a time. Without a lease, nil, everything is allowed.
type lease struct {
	share *share
	taken int64 // of the share
	used  int64
	limit int64 // of used; 0: none
	// soft: what is not free is taken all the same. It is for who has waited
	// until there was as much as is to be expected.
	soft bool
}

// leaseStep is what a lease takes at a time, if it is free: it needs little, often.
const leaseStep = 32 << 10

// grow uses n bytes more, if they are free.
func (l *lease) grow(n int) bool {
	if l == nil {
		return true
	}
	if l.limit > 0 && l.used+int64(n) > l.limit {
		return false
	}
	if more := l.used + int64(n) - l.taken; more > 0 {
		switch atOnce := max(more, leaseStep); {
		case l.soft:
			l.share.force(more)
		case l.share.try(atOnce):
			more = atOnce
		case !l.share.try(more):
			return false
		}
		l.taken += more
	}
	l.used += int64(n)
	return true
}

// shrink uses n bytes less. They stay with the lease, for what comes.
func (l *lease) shrink(n int) {
	if l != nil {
		l.used -= int64(n)
	}
}

// trim gives back what is not used.
func (l *lease) trim() {
	l.share.free(l.taken - l.used)
	l.taken = l.used
}

// end gives everything back.
func (l *lease) end() {
	l.share.free(l.taken)
	l.taken, l.used = 0, 0
}
