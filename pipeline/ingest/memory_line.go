package ingest

import (
	"context"
	"slices"
	"time"
)

// Leases that cannot grow because the memory is in use wait in a line. A part of the memory is
// reserved for one lease, the leader: the first of the line becomes it as soon as there is no other.
// It leads until it needs no more memory. Otherwise many large bodies that arrive at the same time
// would fill the memory together, and all would be refused before one of them is whole. If the
// reserve is not enough for the leader, the last of the line is refused.
const (
	smallLease = largeBody       // bytes that a lease may use of the reserve although it does not lead
	lineWait   = 2 * time.Second // how long a lease waits, in all
	leaderWait = 5 * time.Second // how much longer the leader waits
)

// growth is a lease that waits for memory.
type growth struct {
	of    *lease
	n     int64         // bytes
	given chan struct{} // closed when the lease gets them
	ended chan struct{} // closed when the lease is refused, because the leader needs its memory
}

// await waits until a lease of a client gets n bytes. It returns false if that takes too long, or
// if the request ends.
func (l *lease) await(n int64) bool {
	s := l.share
	s.of.mu.Lock()
	left := l.patience()
	if left <= 0 {
		s.of.mu.Unlock()
		return false
	}
	g := &growth{of: l, n: n, given: make(chan struct{}), ended: make(chan struct{})}
	if s.leader == l {
		s.line = slices.Insert(s.line, 0, g)
	} else {
		s.line = append(s.line, g)
	}
	s.serve()
	s.of.mu.Unlock()
	s.of.waits.Inc()
	if l.work != nil {
		l.work.rest()
		defer l.work.goOn()
	}
	began := time.Now()
	given := g.wait(l.ctx, left, began)
	l.waited += time.Since(began)
	return given
}

// patience returns how much longer a lease may wait.
func (l *lease) patience() time.Duration {
	if l.share.leader == l {
		return lineWait + leaderWait - l.waited
	}
	return lineWait - l.waited
}

func (g *growth) wait(ctx context.Context, within time.Duration, began time.Time) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case <-g.given:
			return true
		case <-g.ended:
			return false
		case <-timer.C:
		case <-ctx.Done():
		}
		longer, given := g.giveUp(ctx, time.Since(began))
		if longer <= 0 {
			return given
		}
		timer.Reset(longer)
	}
}

// giveUp removes a lease from the line, unless it leads by now and may wait for longer.
func (g *growth) giveUp(ctx context.Context, waited time.Duration) (longer time.Duration, given bool) {
	s := g.of.share
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	select {
	case <-g.given: // at the last moment
		return 0, true
	case <-g.ended:
		return 0, false
	default:
	}
	if longer = g.of.patience() - waited; longer > 0 && ctx.Err() == nil {
		return longer, false
	}
	s.line = without(s.line, g)
	s.serve()
	return 0, false
}

// serve gives memory to the first of the line, and then to the next, as long as there is enough.
func (s *share) serve() {
	for len(s.line) > 0 {
		g := s.line[0]
		if !s.takes(g.n, g.of) {
			if s.leader == nil {
				g = s.elect()
			}
			if g.of != s.leader {
				return
			}
			if !s.takes(g.n, g.of) {
				s.refuseLast()
				return
			}
		}
		s.line = s.line[1:]
		close(g.given)
	}
}

// elect makes a lease of the line the leader, and the first of the line. It is the first one of
// another client than the last leader's, so that a client with many requests leaves the others
// their turn.
func (s *share) elect() *growth {
	i := max(0, slices.IndexFunc(s.line, func(g *growth) bool { return g.of.by.key != s.led }))
	g := s.line[i]
	s.line = slices.Insert(slices.Delete(s.line, i, i+1), 0, g)
	s.leader, s.led = g.of, g.of.by.key
	return g
}

// refuseLast refuses the last lease of the line that uses memory. It refuses none if the leader will
// get what it needs when those end that do not wait, or when the one that was refused before ends.
func (s *share) refuseLast() {
	waiting := s.line[0].n
	for _, g := range s.line {
		waiting += g.of.taken
	}
	if s.refused != nil || waiting <= s.room()+s.used {
		return
	}
	for i := len(s.line) - 1; i > 0; i-- {
		if g := s.line[i]; g.of.taken > 0 {
			s.line, s.refused = slices.Delete(s.line, i, i+1), g.of
			close(g.ended)
			return
		}
	}
}

// leads reports whether the lease is the leader.
func (l *lease) leads() bool {
	l.share.of.mu.Lock()
	defer l.share.of.mu.Unlock()
	return l.share.leader == l
}

// follow ends the lead of a lease that needs no more memory, or that ends.
func (l *lease) follow() {
	s := l.share
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.leader == l {
		s.leader = nil
	}
	if s.refused == l {
		s.refused = nil
	}
	s.serve()
}
