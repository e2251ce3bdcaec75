package ingest

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// When many large bodies arrive together, they would fill the memory together, and all would be
// refused before one of them is whole. So older requests go first (wound-wait; Rosenkrantz, Stearns
// and Lewis, 1978): if there is no memory for a request, younger requests whose bodies are being
// received or decoded, or wait for that, are refused, the youngest first, as many as necessary. Meanwhile it waits.
//
// Age alone would be for the client that sends many bodies early. So a client whose request has had
// those of others refused comes after the others, and what a client has limits whose requests are refused for it: see byRank
// and mayRefuse.
const (
	smallLease = largeBody   // bytes up to which a lease is not worth refusing
	memoryWait = time.Second // how long a lease waits for memory, in all
	mostFirst  = 4           // how many in the line may be the first one in turn; each looks at all that may be refused
)

// growth is a lease that waits for memory.
type growth struct {
	of    *lease
	n     int64         // bytes
	got   bool          // whether the lease has got them
	ended chan struct{} // closed when it has, or when it is refused
}

// byRank orders leases by who goes first: those of the client that has waited longest, and of these
// the older ones. A client waits since others were last refused for a request of it, or else since it
// came. Ranks come from the count of such refusals. That of a client that had others refused is even,
// and that of one that comes is odd: it goes before the clients of the last refusal, and after those of
// earlier ones.
func byRank(a, b *lease) int {
	return cmp.Or(cmp.Compare(a.by.rank, b.by.rank), cmp.Compare(a.born, b.born))
}

// yields lets the lease be refused for an older one. interrupt ends what the request waits for
// meanwhile.
func (l *lease) yields(interrupt func()) {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	l.interrupt = interrupt
	l.list(l.holds)
}

// pauses returns the context of a wait for processor time. It also ends when the lease is refused, even
// if interrupt ends nothing because the connection is closed, or nothing is being read.
func (l *lease) pauses(ctx context.Context) (context.Context, context.CancelFunc) {
	if l == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	if l.wake = cancel; l.refused.Load() {
		cancel()
	}
	return ctx, cancel
}

// yielded reports whether the lease was refused for an older one.
func (l *lease) yielded() bool { return l != nil && l.refused.Load() }

// prevails ends that, and reports whether the lease was not refused.
func (l *lease) prevails() bool {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	if l.refused.Load() {
		return false
	}
	l.unlist()
	return true
}

// takes counts n bytes that a lease of a client has got.
func (l *lease) takes(n int64) {
	l.by.memory += n
	l.holds += n
	l.list(l.holds)
}

// list puts the lease on the list of those that may be refused, if its size makes it large enough for
// that.
func (l *lease) list(size int64) {
	if l.interrupt == nil || size <= smallLease {
		return
	}
	if i, found := slices.BinarySearchFunc(l.share.yielding, l, byRank); !found {
		l.share.yielding = slices.Insert(l.share.yielding, i, l)
	}
}

func (l *lease) unlist() {
	l.interrupt = nil
	if i, found := slices.BinarySearchFunc(l.share.yielding, l, byRank); found {
		l.share.yielding = slices.Delete(l.share.yielding, i, i+1)
	}
}

// await waits until a lease of a client gets n bytes. It returns false if that takes too long, or
// if the request ends. A request whose body is decoded has a slot, so it waits only for those that are
// refused for it.
func (l *lease) await(n int64) bool {
	s := l.share
	s.of.mu.Lock()
	within := memoryWait - l.waited
	if l.by.refused || l.refused.Load() || within <= 0 || l.decodes && !s.refuseFor(l, n) {
		s.of.mu.Unlock()
		return false
	}
	l.list(l.holds + n) // many that wait have much memory together
	g := &growth{of: l, n: n, ended: make(chan struct{})}
	i, _ := slices.BinarySearchFunc(s.line, g, func(a, b *growth) int { return byRank(a.of, b.of) })
	s.line = slices.Insert(s.line, i, g)
	s.serve()
	s.of.mu.Unlock()
	s.of.waits.Inc()
	if l.work != nil {
		l.work.rest()
		defer l.work.goOn()
	}
	began := time.Now()
	given := g.wait(within)
	l.waited += time.Since(began)
	return given
}

// wait waits until the lease has got its memory.
func (g *growth) wait(within time.Duration) bool {
	l := g.of
	ctx, cancel := context.WithTimeout(l.ctx, within)
	defer cancel()
	select {
	case <-g.ended:
		return g.got
	case <-ctx.Done():
	}
	s := l.share
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	select {
	case <-g.ended: // at the last moment
		return g.got
	default:
	}
	s.drop(slices.Index(s.line, g))
	s.serve()
	return false
}

// serve gives memory to those in the line, the first ones first. If there is not enough for the
// first one, others are refused, and what they give back is for it: meanwhile others in the line get
// memory only if they stay small. If its client has too much for that, the next one is the first.
func (s *share) serve() {
	if p := s.promised; p != nil {
		if s.fits(p.n) {
			s.give(slices.Index(s.line, p))
		} else if !s.refuseFor(p.of, p.n) {
			s.promised = nil
		}
	}
	decided, tried := s.promised != nil, 0
	for i := 0; i < len(s.line); {
		g := s.line[i]
		if (s.promised == nil || g.of.holds+g.n <= smallLease) && s.fits(g.n) {
			s.give(i)
			continue
		}
		if !decided {
			if tried++; s.refuseFor(g.of, g.n) {
				s.promised = g
				i = slices.Index(s.line, g) // those before it may have been refused
			}
			decided = s.promised != nil || g.of.by.memory == g.of.holds || tried == mostFirst
		}
		i++
	}
}

// give gives a lease in the line its memory, which was taken.
func (s *share) give(i int) {
	g := s.line[i]
	s.drop(i)
	g.of.takes(g.n)
	g.got = true
	close(g.ended)
}

// drop takes a lease out of the line.
func (s *share) drop(i int) {
	if s.line[i] == s.promised {
		s.promised = nil
	}
	s.line = slices.Delete(s.line, i, i+1)
}

// overtakes reports whether a lease would take memory that is promised to another one. One whose
// body is decoded may do that, because it has a slot and should soon give it back.
func (s *share) overtakes(l *lease, n int64) bool {
	return s.promised != nil && byRank(s.promised.of, l) < 0 && !l.decodes && l.holds+n > smallLease
}

// refuseFor refuses other leases so that n bytes will be free for a lease, the last ones first, and
// reports whether there are enough of them. If there are not, it refuses none.
func (s *share) refuseFor(l *lease, n int64) bool {
	free := s.room()
	ending := make(map[*client]int64) // bytes that clients give back
	for _, other := range s.yielding {
		if other.refused.Load() { // and has not ended yet
			free += other.holds
			ending[other.by] += other.holds
		}
	}
	var chosen []*lease
	for _, other := range slices.Backward(s.yielding) {
		if free >= n {
			break
		}
		if other != l && other.holds > 0 && !other.refused.Load() && l.mayRefuse(other, n, ending) {
			free += other.holds
			ending[other.by] += other.holds
			chosen = append(chosen, other)
		}
	}
	if free < n {
		return false
	}
	for _, other := range chosen {
		l.wins = l.wins || other.by != l.by
		s.refuse(other)
	}
	return true
}

// mayRefuse reports whether another lease may be refused so that a lease gets n bytes:
//   - one that comes later, unless its client has less than this client has besides the lease;
//   - one that its client has besides its leader, if the client has more without it than this client
//     will have;
//   - any of the same client, if the lease is its leader.
//
// ending has the memory of leases that were refused and have not ended yet.
func (l *lease) mayRefuse(other *lease, n int64, ending map[*client]int64) bool {
	first := byRank(l, other) < 0
	if other.by == l.by {
		return first || l.by.leader == l
	}
	has, besides := other.by.memory-ending[other.by], l.by.memory-ending[l.by]-l.holds
	return first && has >= besides || other.by.leader != other && has-other.holds > besides+l.holds+n
}

// refuse ends the wait of a lease, or the read that it waits for.
func (s *share) refuse(l *lease) {
	if l.refused.Swap(true) {
		return
	}
	l.interrupt()
	if l.wake != nil {
		l.wake()
	}
	if i := slices.IndexFunc(s.line, func(g *growth) bool { return g.of == l }); i >= 0 {
		close(s.line[i].ended)
		s.drop(i)
	}
}

// hasWon notes that a request of a client for which others were refused has ended. The other
// requests of the client come after those of the others.
func (b *budget) hasWon(by *client) {
	b.wins++
	by.rank = 2*b.wins + 2
	for _, s := range b.shares {
		slices.SortFunc(s.yielding, byRank)
		slices.SortFunc(s.line, func(a, b *growth) int { return byRank(a.of, b.of) })
	}
}
