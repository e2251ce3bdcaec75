package ingest

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sharing divides what requests need among the clients that send them. A client gets more as
// long as it has less than share/(1-share) times what is free. So with a share of a half, it has
// at most as much as is free. If it is alone, that is a half. If two clients want everything,
// each gets a third, and a new client always finds something free. Nothing is kept about a client
// that uses nothing and owes nothing. See decision 0033.
type sharing struct {
	share float64 // the part of everything that a client gets if it is alone; above 0, at most 1
	rates rates
	cut   context.Context // ends waits for processor time when the stage gives up
	most  float64         // the number of processors that one client may use
	owing chan struct{}   // signals that a client wants more than it may use
	turns int             // the maximum number of requests of a client that are decoded at the same time

	mu         sync.Mutex
	processors float64 // the number of processors that one client may use at present
	clients    map[clientKey]*client
	unused     []*client // are reused for new clients
	debtors    []*client // use nothing, but are not forgotten yet
	looked     time.Time // when forgetDebtors last looked at the debtors
	recent     [2]sender // the last two clients that have sent
	pools      [kinds]pool

	waits                              *prometheus.CounterVec
	waitedSlot, waitedTurn, waitedTime prometheus.Counter
}

// pool has the slots of one kind. A request takes a slot by putting an element into slots.
type pool struct {
	slots chan struct{}
	queue []*client // clients with requests that wait, the next one first
}

// kind is a kind of slots.
type kind int

const (
	forFrames kind = iota
	forStore
	forDiscard
	forLookup
	forLarge
	kinds
)

// mostUnused limits how many clients are kept for reuse.
const mostUnused = 256

// shareWait is how long a request waits for a slot. It also slows down clients that ignore 429.
const shareWait = time.Second

// largeDecodes is how many large bodies are decoded at the same time for each processor. More would
// only use more memory.
const largeDecodes = 2

// turnWait is how long a request waits until others of its client are decoded.
const turnWait = 10 * time.Second

func newSharing(share float64, frames, store, discard, lookup chan struct{}) *sharing {
	waits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "oona_ingest_share_waits_total", Help: "Requests that waited because their client had its share: of the slots (slot), of the requests that are decoded at the same time (turn), of processor time (time).",
	}, []string{"for"})
	most := share * float64(runtime.GOMAXPROCS(0))
	large := make(chan struct{}, largeDecodes*runtime.GOMAXPROCS(0))
	return &sharing{
		share: share, turns: max(1, int(most)), most: most, processors: most,
		cut: context.Background(), owing: make(chan struct{}, 1),
		clients:    make(map[clientKey]*client),
		pools:      [kinds]pool{forFrames: {slots: frames}, forStore: {slots: store}, forDiscard: {slots: discard}, forLookup: {slots: lookup}, forLarge: {slots: large}},
		waits:      waits,
		waitedSlot: waits.WithLabelValues("slot"), waitedTurn: waits.WithLabelValues("turn"), waitedTime: waits.WithLabelValues("time"),
	}
}

// active returns the number of clients that use something.
func (s *sharing) active() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(len(s.clients))
}

// allows reports whether a client that has some may get more of what is free.
func (s *sharing) allows(has, free int64) bool {
	return float64(has)*(1-s.share) < s.share*float64(free)
}

func (s *sharing) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_clients", Help: "Clients that have requests in progress.",
	}, s.active)
}

// give gives a client a slot if it may have one more, and reports whether it did.
func (s *sharing) give(to *client, k kind) bool {
	slots := s.pools[k].slots
	if !s.allows(int64(to.held[k]), int64(cap(slots)-len(slots))) {
		return false
	}
	select {
	case slots <- struct{}{}:
		to.held[k]++
		return true
	default: // a stage that stops has taken the last one
		return false
	}
}

// entry is the result of asking for a slot.
type entry int

const (
	entered    entry = iota
	allTaken         // no slot is free
	shareTaken       // the client has its share
)

// try takes a slot if there is one for the client.
func (c *client) try(k kind) entry {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.tryLocked(k)
}

func (c *client) tryLocked(k kind) entry {
	slots := c.of.pools[k].slots
	switch {
	case len(slots) == cap(slots):
		return allTaken
	case len(c.waiting[k]) > 0 || !c.of.give(c, k):
		return shareTaken
	}
	return entered
}

// enter takes a slot, and waits if there is none for the client. If it gets none within the given
// time, it returns the result of its first attempt.
func (c *client) enter(ctx context.Context, k kind, within time.Duration) entry {
	s := c.of
	s.mu.Lock()
	result := c.tryLocked(k)
	if result == entered {
		s.mu.Unlock()
		return result
	}
	given := c.line(k)
	s.mu.Unlock()
	s.waitedSlot.Inc()
	if s.await(ctx, given, within, func() { c.withdraw(k, given) }) {
		return entered
	}
	return result
}

// line adds a request to those that wait for a slot. given is closed when it gets one.
func (c *client) line(k kind) (given chan struct{}) {
	given = make(chan struct{})
	if c.waiting[k] = append(c.waiting[k], given); len(c.waiting[k]) == 1 {
		c.of.pools[k].queue = append(c.of.pools[k].queue, c)
	}
	return given
}

// withdraw removes a request that waits for a slot.
func (c *client) withdraw(k kind, given chan struct{}) {
	if c.waiting[k] = without(c.waiting[k], given); len(c.waiting[k]) == 0 {
		c.of.pools[k].queue = without(c.of.pools[k].queue, c)
	}
}

// await waits until given is closed, and reports whether it was. If that takes too long, it calls
// withdraw with the mutex held.
func (s *sharing) await(ctx context.Context, given chan struct{}, within time.Duration, withdraw func()) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-given:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-given: // at the last moment
		return true
	default:
		withdraw()
		return false
	}
}

// exit gives a slot back. Free slots then go to waiting requests, one of each client in turn.
func (c *client) exit(k kind) {
	s := c.of
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := &s.pools[k]
	<-pool.slots
	c.held[k]--
	for range len(pool.queue) {
		var next *client
		next, pool.queue = shift(pool.queue)
		if s.give(next, k) {
			var given chan struct{}
			given, next.waiting[k] = shift(next.waiting[k])
			close(given)
		}
		if len(next.waiting[k]) > 0 {
			pool.queue = append(pool.queue, next)
		}
	}
}

// turn waits until few enough requests of the client are being decoded. It returns false if that
// takes too long. Decoding keeps a processor busy, so this leaves processors to other clients.
func (c *client) turn(ctx context.Context) bool {
	s := c.of
	s.mu.Lock()
	if c.tryTurnLocked() {
		s.mu.Unlock()
		return true
	}
	given := make(chan struct{})
	c.turning = append(c.turning, given)
	s.mu.Unlock()
	s.waitedTurn.Inc()
	return s.await(ctx, given, turnWait, func() { c.turning = without(c.turning, given) })
}

// tryTurn takes a turn if there is one.
func (c *client) tryTurn() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.tryTurnLocked()
}

func (c *client) tryTurnLocked() bool {
	if c.turns >= c.of.turns {
		return false
	}
	c.turns++
	return true
}

// endTurn ends a turn. The next request of the client gets it.
func (c *client) endTurn() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.turns--
	if c.turns < c.of.turns && len(c.turning) > 0 {
		var given chan struct{}
		given, c.turning = shift(c.turning)
		close(given)
		c.turns++
	}
}

// resume continues a turn that was ended to wait for something else. It does not wait,
// so for a short time the client may have a turn too many.
func (c *client) resume() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.turns++
}
