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
const (
	smallLease = largeBody   // bytes up to which a lease is not worth refusing
	memoryWait = time.Second // how long a lease waits for memory, in all
)

// growth is a lease that waits for memory.
type growth struct {
	of    *lease
	n     int64         // bytes
	got   bool          // whether the lease has got them
	ended chan struct{} // closed when it has, or when it is refused
}

func byAge(a, b *lease) int { return cmp.Compare(a.born, b.born) }

// yields lets the lease be refused for an older one. interrupt ends what the request waits for
// meanwhile.
func (l *lease) yields(interrupt func()) {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	l.interrupt = interrupt
	l.list(l.holds)
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
	if i, found := slices.BinarySearchFunc(l.share.yielding, l, byAge); !found {
		l.share.yielding = slices.Insert(l.share.yielding, i, l)
	}
}

func (l *lease) unlist() {
	l.interrupt = nil
	if i, found := slices.BinarySearchFunc(l.share.yielding, l, byAge); found {
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
	i, _ := slices.BinarySearchFunc(s.line, g, func(a, b *growth) int { return byAge(a.of, b.of) })
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
	s.line = without(s.line, g)
	s.serve()
	return false
}

// serve gives memory to those in the line, the oldest first. If there is not enough for the oldest,
// younger ones are refused, and what they give back is for it: others in the line get memory only if
// they stay small.
func (s *share) serve() {
	s.promised = false
	for i := 0; i < len(s.line); {
		g := s.line[i]
		if s.promised && g.of.holds+g.n > smallLease || !s.fits(g.n) {
			if i == 0 {
				s.promised = s.refuseFor(g.of, g.n)
			}
			i++
			continue
		}
		s.line = slices.Delete(s.line, i, i+1)
		g.of.takes(g.n)
		g.got = true
		close(g.ended)
	}
}

// overtakes reports whether a lease would take memory that is promised to an older one. One whose
// body is decoded may do that, because it has a slot and should soon give it back.
func (s *share) overtakes(l *lease, n int64) bool {
	return s.promised && len(s.line) > 0 && s.line[0].of.born < l.born && !l.decodes && l.holds+n > smallLease
}

// refuseFor refuses younger leases so that n bytes will be free for a lease, and reports whether
// there are enough of them. If there are not, it refuses none.
func (s *share) refuseFor(l *lease, n int64) bool {
	free := s.room()
	for _, other := range s.yielding {
		if other.refused.Load() { // and has not ended yet
			free += other.holds
		}
	}
	first := len(s.yielding)
	for ; free < n && first > 0 && s.yielding[first-1].born > l.born; first-- {
		if other := s.yielding[first-1]; !other.refused.Load() {
			free += other.holds
		}
	}
	if free < n {
		return false
	}
	for _, other := range s.yielding[first:] {
		s.refuse(other)
	}
	return true
}

// refuse ends the wait of a lease, or the read that it waits for.
func (s *share) refuse(l *lease) {
	if l.refused.Swap(true) {
		return
	}
	l.interrupt()
	if i := slices.IndexFunc(s.line, func(g *growth) bool { return g.of == l }); i >= 0 {
		close(s.line[i].ended)
		s.line = slices.Delete(s.line, i, i+1)
	}
}
