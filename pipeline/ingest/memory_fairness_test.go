package ingest

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowding has the leases of several clients in a memory.
type crowding struct {
	t       *testing.T
	memory  *share
	sharing *sharing
	ending  sync.WaitGroup
}

func newCrowding(t *testing.T, steps int64) *crowding {
	return &crowding{t: t, memory: newBudget(steps * leaseStep).share(0), sharing: newSharing(.5, nil, nil, nil, nil)}
}

// receive returns a lease of a body of a client that is being received. It ends when it is refused.
func (c *crowding) receive(client string) *receiving {
	by := c.sharing.join(clientKey{name: client}, time.Now())
	r := &receiving{c.memory.lease(c.t.Context(), by), make(chan struct{})}
	r.yields(func() { close(r.interrupted) })
	c.ending.Go(func() {
		<-r.interrupted
		r.end()
		by.leave()
	})
	return r
}

// grows grows by steps, and fails the test if it can't.
func (c *crowding) grows(r *receiving, steps int) {
	c.t.Helper()
	if !r.Grow(steps * leaseStep) {
		c.t.Fatal("a body gets no memory")
	}
}

// ends ends a lease that was not refused.
func (c *crowding) ends(r *receiving) {
	c.t.Helper()
	if r.refused.Load() {
		c.t.Fatal("the body was refused")
	}
	close(r.interrupted)
	synctest.Wait()
}

// yielders returns the indexes of the bodies that were refused.
func yielders(of []*receiving) (which []int) {
	for i, r := range of {
		if r.refused.Load() {
			which = append(which, i)
		}
	}
	return which
}

// A client that has more than another one has none of that one's bodies refused, although they came
// later, but its own.
func TestClientThatHasMoreRefusesItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowding(t, 100)
		var greedy, others []*receiving
		for range 5 {
			greedy = append(greedy, c.receive("greedy"))
		}
		for _, r := range greedy {
			c.grows(r, 9)
		}
		for i := range 5 {
			others = append(others, c.receive(fmt.Sprint(i)))
			c.grows(others[i], 11)
		}
		var taken int
		for _, r := range greedy {
			if r.refused.Load() {
				continue
			}
			c.grows(r, 9)
			c.ends(r)
			taken++
		}
		if got := fmt.Sprint(yielders(greedy)); taken == 0 || got != "[4]" {
			t.Errorf("%d bodies of the greedy client are taken, %s are refused", taken, got)
		}
		if got := yielders(others); len(got) != 0 {
			t.Errorf("of the others %v are refused", got)
		}
		for _, r := range others {
			c.ends(r)
		}
		if c.memory.inUse() != 0 || len(c.sharing.clients) != 0 {
			t.Errorf("%d bytes are in use, %d clients are known", c.memory.inUse(), len(c.sharing.clients))
		}
	})
}

// A client that has opened many requests early has a body of another client refused for only one of
// them. The next one waits for the other client.
func TestClientsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowding(t, 20)
		var early []*receiving
		for range 5 {
			early = append(early, c.receive("early"))
		}
		first := c.receive("other")
		c.grows(first, 15)
		c.grows(early[0], 15)
		if !first.refused.Load() {
			t.Fatal("there was memory for both")
		}
		for i := 1; i < len(early); i++ {
			c.ends(early[i-1])
			again := c.receive("other")
			c.grows(again, 15)
			time.AfterFunc(memoryWait/2, func() {
				if again.refused.Load() {
					t.Errorf("the other client's body is refused again for that of early request %d", i)
					return
				}
				close(again.interrupted)
			})
			began := time.Now()
			c.grows(early[i], 15)
			if took := time.Since(began); took != memoryWait/2 {
				t.Errorf("early request %d gets its memory after %s", i, took)
			}
		}
		c.ends(early[len(early)-1])
		if c.memory.inUse() != 0 || len(c.sharing.clients) != 0 {
			t.Errorf("%d bytes are in use, %d clients are known", c.memory.inUse(), len(c.sharing.clients))
		}
	})
}

// A client that always has requests does not come after one that comes again and again, and is forgotten
// in between.
func TestClientThatStaysTakesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowding(t, 20)
		var stays []*receiving
		for range 4 {
			stays = append(stays, c.receive("stays"))
		}
		comes := c.receive("comes")
		c.grows(comes, 15)
		c.grows(stays[0], 15)
		c.ends(stays[0])
		comes = c.receive("comes")
		c.grows(stays[1], 5)
		c.grows(comes, 18)
		if !stays[1].refused.Load() {
			t.Error("the client that stays has its turn twice")
		}
		c.ends(comes)
		comes = c.receive("comes")
		c.grows(comes, 15)
		c.grows(stays[2], 15)
		if !comes.refused.Load() {
			t.Error("the client that comes again has its turn twice")
		}
		c.ends(stays[2])
		c.ends(stays[3])
		if c.memory.inUse() != 0 || len(c.sharing.clients) != 0 {
			t.Errorf("%d bytes are in use, %d clients are known", c.memory.inUse(), len(c.sharing.clients))
		}
	})
}

// A client that has filled the memory with many bodies gives up some of them for another client that
// has less, although that one came later. The one that it is about to complete is not refused.
func TestClientThatHasLessGetsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowding(t, 100)
		var greedy []*receiving
		for range 7 {
			greedy = append(greedy, c.receive("greedy"))
		}
		for _, r := range greedy[:6] {
			c.grows(r, 8)
		}
		c.grows(greedy[0], 52)
		other := c.receive("other")
		c.grows(other, 10)
		if got := fmt.Sprint(yielders(greedy)); got != "[4 5]" {
			t.Errorf("of the greedy client %s are refused", got)
		}
		c.grows(other, 30)
		if got := fmt.Sprint(yielders(greedy)); got != "[1 2 3 4 5]" {
			t.Errorf("of the greedy client %s are refused", got)
		}
		began := time.Now()
		if other.Grow(10*leaseStep) || time.Since(began) != memoryWait {
			t.Errorf("it gets memory of the last one after %s", time.Since(began))
		}
		for _, r := range []*receiving{greedy[0], greedy[6], other} {
			c.ends(r)
		}
		if c.memory.inUse() != 0 || len(c.sharing.clients) != 0 {
			t.Errorf("%d bytes are in use, %d clients are known", c.memory.inUse(), len(c.sharing.clients))
		}
	})
}

// A body that must not have others refused, because its client has too much, does not keep those
// after it from that.
func TestNextOneInTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowding(t, 100)
		leader, published, greedy := c.receive("greedy"), c.receive("greedy"), c.receive("greedy")
		c.grows(leader, 1)
		c.grows(published, 39)
		published.prevails()
		c.ends(leader)
		waits, young := c.receive("waits"), c.receive("young")
		c.grows(greedy, 1)
		c.grows(waits, 5)
		c.grows(young, 30)
		c.memory.force(24 * leaseStep)
		var growing sync.WaitGroup
		growing.Go(func() {
			if greedy.Grow(20 * leaseStep) {
				t.Error("the greedy client gets memory, which the other one waits for")
			}
		})
		synctest.Wait()
		if len(c.memory.line) != 1 || len(yielders([]*receiving{waits, young})) != 0 {
			t.Errorf("%d wait, others are refused", len(c.memory.line))
		}
		began := time.Now()
		c.grows(waits, 25)
		if !young.refused.Load() || time.Since(began) != 0 {
			t.Errorf("after %s the next one gets memory", time.Since(began))
		}
		growing.Wait()
		for _, r := range []*receiving{published, greedy, waits} {
			c.ends(r)
		}
	})
}
