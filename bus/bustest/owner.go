package bustest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// owner takes its assignments, from the commit on, and records them. Its consumers make
// the commits of due, once each. A consumer makes that of its own field due before.
type owner struct {
	events   chan event
	due      chan bus.Commit
	outcomes chan error
	fail     atomic.Int64 // number of calls of Assign that fail
	held     atomic.Int64 // partitions
	// strict: refuse a partition whose log does not have the commit's offset. Otherwise
	// it is read from its oldest record.
	strict bool
	// readTo is the least end of the log.
	readTo int64
	slow   time.Duration // how long each method of a consumer takes
}

type event struct {
	kind string // assigned, refused, short, lost, revoked
	of   *assignment
}

// assignment is a Consumer.
type assignment struct {
	bus.Assignment
	owner    *owner
	from     int64
	due      chan bus.Commit // of this consumer and no other
	gate     chan struct{}   // Commit waits while it is full
	end      atomic.Int64    // as last reported; -1 before
	ends     atomic.Int64    // number of reports
	revoked  atomic.Bool
	late     atomic.Bool  // a method was called after Revoke
	calls    atomic.Int64 // methods that run now
	together atomic.Bool  // two methods ran at the same time
}

var errRefused = errors.New("not now")

func newOwner() *owner {
	return &owner{events: make(chan event, 1000), due: make(chan bus.Commit, 10), outcomes: make(chan error, 10)}
}

func (o *owner) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, held := a.Resume()
	c := &assignment{Assignment: a, owner: o, from: from, due: make(chan bus.Commit, 1), gate: make(chan struct{}, 1)}
	c.end.Store(-1)
	short := !held || a.LogEnd < o.readTo
	switch {
	case o.fail.Add(-1) >= 0:
		o.events <- event{"refused", c}
		return 0, nil, errRefused
	case short && !a.Settled:
		o.events <- event{"short", c}
		return 0, nil, bus.ErrShort
	case short && o.strict:
		o.events <- event{"lost", c}
		return 0, nil, errRefused
	}
	o.held.Add(1)
	o.events <- event{"assigned", c}
	return from, c, nil
}

// call records that a method runs, until end.
func (c *assignment) call() (end func()) {
	if c.calls.Add(1) > 1 {
		c.together.Store(true)
	}
	if c.revoked.Load() {
		c.late.Store(true)
	}
	time.Sleep(c.owner.slow)
	return func() { c.calls.Add(-1) }
}

func (c *assignment) Commit() (bus.Commit, bool) {
	defer c.call()()
	c.gate <- struct{}{}
	defer func() { <-c.gate }()
	select {
	case commit := <-c.due:
		return commit, true
	default:
	}
	select {
	case commit := <-c.owner.due:
		return commit, true
	default:
		return bus.Commit{}, false
	}
}

func (c *assignment) Committed(_ bus.Commit, err error) {
	defer c.call()()
	c.owner.outcomes <- err
}

func (c *assignment) End(offset int64) {
	defer c.call()()
	c.end.Store(offset)
	c.ends.Add(1)
}

func (c *assignment) Revoke() {
	defer c.call()()
	c.revoked.Store(true)
	c.owner.held.Add(-1)
	c.owner.events <- event{"revoked", c}
}

// await returns the next n events, which must be of a kind. It skips events of kind
// short.
func (o *owner) await(t *trial, kind string, n int) (all []*assignment) {
	t.Helper()
	timeout := time.After(longest)
	for len(all) < n {
		select {
		case e := <-o.events:
			if e.kind == "short" && kind != "short" {
				continue
			}
			if e.kind != kind {
				t.Fatalf("%s: %+v, want %s", e.kind, e.of.Assignment, kind)
			}
			all = append(all, e.of)
		case <-timeout:
			t.Fatalf("%d of %d were %s", len(all), n, kind)
		}
	}
	return all
}

// commit makes a commit and returns its error.
func (o *owner) commit(t *testing.T, c bus.Commit) error {
	t.Helper()
	o.due <- c
	return o.outcome(t)
}

func (o *owner) outcome(t *testing.T) error {
	t.Helper()
	select {
	case err := <-o.outcomes:
		return err
	case <-time.After(longest):
		t.Fatal("no commit was made")
		return nil
	}
}
