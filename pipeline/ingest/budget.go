package ingest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// budget limits the memory of requests and records in progress, in bytes of the capacity of their
// buffers. It is divided into shares. A part is reserved for each share, and any share can use the
// rest.
type budget struct {
	total int64
	waits prometheus.Counter // requests that have waited for memory

	mu     sync.Mutex
	least  int64 // bytes that are reserved for all shares together
	wins   int64 // number of requests so far for which others were refused
	shares []*share
	freed  chan struct{} // closed when memory is freed; nil if no call of wait needs it
}

// share is the part of the budget that one input of ingest uses.
type share struct {
	of       *budget
	least    int64         // bytes that are reserved for it
	turn     chan struct{} // held by the first call of wait
	used     int64
	leases   int64     // number of leases so far
	yielding []*lease  // large ones that may be refused for others, in the order of byRank
	line     []*growth // leases that wait for memory, in the same order
	promised *growth   // the one in the line for which others were refused that have not ended yet; may be nil
}

func newBudget(total int64) *budget {
	return &budget{total: total, waits: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "oona_ingest_memory_waits_total", Help: "How often a request waited for memory that other requests used.",
	})}
}

// share adds a share, with least bytes reserved for it.
func (b *budget) share(least int64) *share {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &share{of: b, least: least, turn: make(chan struct{}, 1)}
	b.shares, b.least = append(b.shares, s), b.least+least
	return s
}

// most returns how many bytes a share can get while the other shares use none.
func (s *share) most() int64 {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.of.total - (s.of.least - s.least)
}

// others returns how many bytes are used by the other shares, or reserved for them.
func (s *share) others() (sum int64) {
	for _, other := range s.of.shares {
		if other != s {
			sum += max(other.used, other.least)
		}
	}
	return sum
}

// try takes n bytes for a lease if they are free, not promised to an older lease, and within the
// client's share of the memory. It reports whether it has taken them. The client's share limits neither
// its only request nor its leading lease.
func (s *share) try(n int64, of *lease) bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	by := of.by
	if by == nil {
		return s.fits(n)
	}
	if by.leader == nil {
		by.leader = of
	}
	leads := by.leader == of || by.alone()
	if by.refused = !leads && !by.of.allows(by.memory+n, s.room()-n); by.refused || s.overtakes(of, n) || !s.fits(n) {
		return false
	}
	of.takes(n)
	return true
}

// room returns how many bytes are free.
func (s *share) room() int64 {
	return s.of.total - s.used - s.others()
}

func (s *share) fits(n int64) bool {
	if max(s.used+n, s.least)+s.others() > s.of.total {
		return false
	}
	s.used += n
	return true
}

// wait takes n bytes as soon as they are free and all earlier calls have returned. n must be at most
// least. wait returns false if ctx ends first.
func (s *share) wait(ctx context.Context, n int64) bool {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
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
		case <-ctx.Done():
			return false
		}
	}
}

// scarce reports whether more than half of the memory that the share can get is in use.
func (s *share) scarce() bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.used > s.room()
}

// force takes n bytes even if that exceeds the budget.
func (s *share) force(n int64) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.used += n
}

// free returns n bytes of a client.
func (s *share) free(n int64, by *client) {
	if n == 0 {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.freeLocked(n, by)
}

func (s *share) freeLocked(n int64, by *client) {
	s.used -= n
	if by != nil {
		by.memory -= n
	}
	if s.of.freed != nil {
		close(s.of.freed)
		s.of.freed = nil
	}
	for _, share := range s.of.shares { // every share can use the freed memory
		if len(share.line) > 0 {
			share.serve()
		}
	}
}

func (s *share) inUse() int64 {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.used
}

// gauge returns the metric of the share. The label by says what the memory is used for.
func (s *share) gauge(by string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_memory_bytes", Help: "Memory that ingest uses for input until it is published or refused: requests with frames, uploaded tensors, records of the raw topic.",
		ConstLabels: prometheus.Labels{"by": by},
	}, func() float64 { return float64(s.inUse()) })
}

// lease is the memory of a share that one request, or one record of the raw topic,
// uses. It is for one goroutine at a time. A nil lease has no limit.
type lease struct {
	share  *share
	by     *client         // the client that uses the memory; nil for the raw topic
	ctx    context.Context // of the request; ends its waits
	work   *work           // of the request while its body is decoded; nil otherwise
	waited time.Duration   // how long it has waited for memory
	taken  int64           // bytes taken from the share
	used   int64           // the part of them in use
	limit  int64           // maximum of used; 0 means no limit
	// soft lets the lease grow even if no memory is free. It is for a record that has waited until its
	// estimated memory was free.
	soft bool

	born      int64       // the number of the lease
	refused   atomic.Bool // whether it was refused to make room for another one
	wins      bool        // whether leases of other clients were refused for it; guarded by the mutex of the budget
	holds     int64       // taken, guarded by the mutex of the budget; only for a client
	decodes   bool        // whether its body was received and is being decoded
	interrupt func()      // ends its waits when it is refused; nil if it cannot be refused
	wake      func()      // ends its last wait for processor time when it is refused; may be nil
}

// lease returns a lease for a request of a client.
func (s *share) lease(ctx context.Context, by *client) *lease {
	by.keep()
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.leases++
	if by.rank == 0 {
		by.rank = 2*s.of.wins + 1
	}
	return &lease{share: s, by: by, ctx: ctx, born: s.leases}
}

// lead notes that the body of the lease is being decoded. The lease may then take all free memory, like
// the lease of an only request, until it ends, unless another lease of the client whose body is being
// decoded already leads. Otherwise a client that sends many bodies at the same time would fill its
// share with them, and none could be decoded.
func (l *lease) lead() {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	if l.decodes = true; l.by.leader == nil || !l.by.leader.decodes {
		l.by.leader = l
	}
}

// overShare reports whether the last request for memory was refused because of the client's
// share.
func (l *lease) overShare() bool {
	if l.by == nil {
		return false
	}
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	return l.by.refused
}

// leaseStep is the number of bytes that a lease takes from its share at once, if they are free.
// Leases grow often and by small amounts, so this saves calls.
const leaseStep = 32 << 10

// Grow uses n more bytes, and reports whether it got them. A lease of a client may wait for them.
func (l *lease) Grow(n int) bool {
	if l == nil {
		return true
	}
	if l.limit > 0 && l.used+int64(n) > l.limit {
		return false
	}
	if more := l.used + int64(n) - l.taken; more > 0 {
		if l.refused.Load() {
			return false
		}
		switch step := max(more, leaseStep); {
		case l.soft:
			l.share.force(more)
		case l.share.try(step, l):
			more = step
		case !l.share.try(more, l) && (l.by == nil || !l.await(more)):
			return false
		}
		l.taken += more
	}
	l.used += int64(n)
	return true
}

// Shrink uses n bytes less. The lease keeps them until it grows again or is trimmed.
func (l *lease) Shrink(n int) {
	if l != nil {
		l.used -= int64(n)
	}
}

// trim gives the unused bytes back to the share.
func (l *lease) trim() {
	l.share.free(l.taken-l.used, l.by)
	l.taken = l.used
}

// end gives everything back to the share. The lease must not be used afterwards.
func (l *lease) end() {
	if l.by == nil {
		l.share.free(l.taken, nil)
		l.taken, l.used = 0, 0
		return
	}
	l.leave()
	l.by.release()
	l.by = nil
}

// leave ends the lease of a client, and its lead. It removes the lease from the list of those that may
// be refused, and frees its memory, under one lock. Otherwise others could be refused for memory that
// this one is about to free.
func (l *lease) leave() {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	l.unlist()
	if l.by.leader == l {
		l.by.leader = nil
	}
	if l.wins {
		l.share.of.hasWon(l.by)
	}
	l.share.freeLocked(l.taken, l.by)
	l.taken, l.used = 0, 0
}
