package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Random leases of random clients grow, shrink, are trimmed, end and are cancelled, while the raw
// topic takes and frees memory of its own. At each moment the counters agree, nobody waits longer
// than a lease may, and afterwards everything is free.
func TestMemoryModel(t *testing.T) {
	const seeds = 150 // more were run when this was written
	var refused int64
	defer func() {
		if refused < seeds/3 {
			t.Errorf("only %d bodies were refused for older ones", refused)
		}
	}()
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed)
			m.run()
			refused += m.refused.Load()
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// model is a budget with three shares, like that of a stage, and what uses it.
type model struct {
	t        *testing.T
	r        *rand.Rand
	sharing  *sharing
	budget   *budget
	frames   *share
	tensors  *share
	raw      *share
	total    int64
	mu       sync.Mutex
	clients  map[*client]bool
	forced   int64 // bytes that were taken by force
	requests sync.WaitGroup
	refused  atomic.Int64 // bodies that were refused for older ones
}

func newModel(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 0))
	m := &model{t: t, r: r, total: int64(20+r.IntN(180)) * leaseStep, clients: make(map[*client]bool)}
	m.sharing = newSharing([]float64{.1, .5, .9, 1}[r.IntN(4)], nil, nil, nil, nil)
	m.sharing.turns = 1 + r.IntN(3)
	m.budget = newBudget(m.total)
	m.frames = m.budget.share(m.total / 4)
	m.tensors = m.budget.share(m.total / 8)
	m.raw = m.budget.share(m.total / 8)
	return m
}

func (m *model) run() {
	done := make(chan struct{})
	requests := 10 + m.r.IntN(50)
	clients := 1 + m.r.IntN(8)
	for range requests {
		key, seed := clientKey{name: fmt.Sprint(m.r.IntN(clients))}, m.r.Uint64()
		after := time.Duration(m.r.IntN(3000)) * time.Millisecond
		m.requests.Go(func() {
			time.Sleep(after)
			m.request(rand.New(rand.NewPCG(seed, 1)), key)
		})
	}
	if m.r.IntN(2) == 0 {
		for range 3 {
			seed := m.r.Uint64()
			m.requests.Go(func() { m.record(rand.New(rand.NewPCG(seed, 2))) })
		}
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(7 * time.Millisecond):
				m.check()
			}
		}
	})
	m.requests.Wait()
	close(done)
	watching.Wait()
	for _, s := range m.budget.shares {
		if s.used != 0 || len(s.line) != 0 || len(s.yielding) != 0 {
			m.t.Errorf("afterwards %d bytes are in use, %d wait, %d are received", s.used, len(s.line), len(s.yielding))
		}
	}
	if len(m.sharing.clients) != 0 {
		m.t.Errorf("%d clients are known", len(m.sharing.clients))
	}
	for by := range m.clients {
		if by.memory != 0 || by.leader != nil || by.turns != 0 || len(by.turning) != 0 {
			m.t.Errorf("a client has %d bytes and %d turns, %d requests wait", by.memory, by.turns, len(by.turning))
		}
	}
}

// request is one request of a client.
func (m *model) request(r *rand.Rand, key clientKey) {
	by := m.sharing.join(key, time.Now())
	defer by.leave()
	m.mu.Lock()
	m.clients[by] = true
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	if r.IntN(10) == 0 {
		defer time.AfterFunc(time.Duration(r.IntN(4000))*time.Millisecond, cancel).Stop()
	}
	of := m.frames
	if r.IntN(5) == 0 {
		of = m.tensors
	}
	l := of.lease(ctx, by)
	published := false
	defer func() {
		if !published {
			l.end()
		}
	}()
	interrupted := make(chan struct{})
	l.yields(func() {
		m.refused.Add(1)
		close(interrupted)
	})
	for range r.IntN(12) { // its body is received
		if !m.grow(l, r) {
			return
		}
		select {
		case <-time.After(time.Duration(r.IntN(50)) * time.Millisecond):
		case <-interrupted:
			return
		}
	}
	if !l.prevails() {
		return
	}
	l.lead()
	l.yields(func() { m.refused.Add(1) })
	if !by.turn(ctx) {
		return
	}
	func() {
		defer by.endTurn()
		l.work = by.work()
		defer func() { l.work = nil }()
		for range r.IntN(6) {
			if !m.grow(l, r) {
				return
			}
			if r.IntN(3) == 0 {
				l.Shrink(r.IntN(int(l.used) + 1))
			}
		}
		published = l.prevails()
	}()
	if !published {
		return
	}
	if published = r.IntN(6) > 0; !published { // the store refuses it
		return
	}
	l.trim()
	time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
	if r.IntN(3) == 0 { // it is in the spool, and the bus takes it later
		m.requests.Go(func() {
			time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
			l.end()
		})
		return
	}
	l.end()
}

func (m *model) grow(l *lease, r *rand.Rand) bool {
	n := r.IntN(20 << 10)
	if r.IntN(2) == 0 {
		n = r.IntN(int(m.total / 4))
	}
	began := time.Now()
	waited := l.waited
	got := l.Grow(n)
	if took := time.Since(began); l.waited-waited != took || l.waited > memoryWait {
		m.t.Errorf("it waited %s, %s in all, and %s are counted", took, l.waited, l.waited-waited)
	}
	if l.used > l.taken && got {
		m.t.Errorf("it uses %d of %d bytes", l.used, l.taken)
	}
	return got
}

// record is like the records of the raw topic.
func (m *model) record(r *rand.Rand) {
	for range 10 {
		n := r.Int64N(m.raw.least/4) + 1
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
		if !m.raw.wait(ctx, n) {
			m.t.Error("a record got no memory in a minute")
			cancel()
			return
		}
		cancel()
		l := &lease{share: m.raw, taken: n, soft: true}
		if more := r.IntN(int(2 * n)); r.IntN(4) == 0 {
			m.mu.Lock()
			m.forced += int64(more)
			m.mu.Unlock()
			l.Grow(more)
		}
		l.trim()
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		l.end()
	}
}

// check compares the counters while nothing runs.
func (m *model) check() {
	synctest.Wait()
	m.budget.mu.Lock()
	defer m.budget.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	var ofClients int64
	for by := range m.clients {
		ofClients += by.memory
	}
	if used := m.frames.used + m.tensors.used; ofClients != used {
		m.t.Errorf("the clients have %d bytes, %d are in use", ofClients, used)
	}
	if used := m.frames.used + m.tensors.used + m.raw.used; used > m.total+m.forced {
		m.t.Errorf("%d of %d bytes are in use, %d by force", used, m.total, m.forced)
	}
	for _, s := range m.budget.shares {
		for _, g := range s.line {
			if g.n <= s.room() {
				m.t.Errorf("a lease waits for %d of %d bytes that are free", g.n, s.room())
			}
		}
		if !slices.IsSortedFunc(s.yielding, byRank) || !slices.IsSortedFunc(s.line, func(a, b *growth) int { return byRank(a.of, b.of) }) {
			m.t.Error("leases are not in their order")
		}
		for _, l := range s.yielding {
			if l.refused.Load() {
				m.t.Error("a lease that was refused has not ended")
			}
		}
	}
}
