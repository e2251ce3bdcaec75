package partition

import (
	"context"
	"sync"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// writeTicks appends a tick to every assigned partition that has been quiet for
// a tick interval while windows are open there, so that their time goes on, and
// now and then to one that is idle.
func (r *Runtime) writeTicks(ctx context.Context) error {
	timer := time.NewTimer(r.shortestTick())
	defer timer.Stop()
	var writing sync.WaitGroup
	defer writing.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-timer.C:
			timer.Reset(r.shortestTick())
			for _, p := range r.quietPartitions(now) {
				// One that cannot be written must not keep the others from it.
				if p.ticking.CompareAndSwap(false, true) {
					writing.Go(func() {
						defer p.ticking.Store(false)
						r.writeTick(p, now)
					})
				}
			}
		}
	}
}

// LeastTick is how often quiet partitions are looked at, at most: a worker that
// does so all the time has no time left.
const LeastTick = 10 * time.Millisecond

// shortestTick is the shortest tick interval of the worker's settings and of
// its partitions' logs.
func (r *Runtime) shortestTick() time.Duration {
	shortest := r.cfg.TickInterval
	for _, p := range r.assignments() {
		shortest = min(shortest, time.Duration(p.tickInterval.Load()))
	}
	return max(shortest, LeastTick)
}

// mostIdle is how long an idle partition waits for a tick at most.
const mostIdle = 15 * time.Minute

// idleTick is how long the partition, when it is idle, waits for a tick.
func (p *assignment) idleTick(retention time.Duration) time.Duration {
	if retention == 0 {
		return mostIdle
	}
	return min(max(retention/time.Duration(p.idleTicks.Load()), time.Second), mostIdle)
}

// quietPartitions are those that have windows open and had no record for a tick
// interval, as there was none: then only a tick can close them. Those without
// open windows are idle, if anything was ever written to them.
func (r *Runtime) quietPartitions(now time.Time) []*assignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	retention := time.Duration(r.retention.Load())
	var quiet []*assignment
	for p := range r.held {
		// In this order: a record that is read meanwhile is noted by when it was.
		idle := p.open.Load() == 0
		if idle && p.next.Load() == 0 || !p.read(now) {
			continue
		}
		// The interval is measured with some play: a tick that is read just
		// after it was due must not cost the next one.
		wait, since := p.tickInterval.Load()*9/10, p.lastRead.Load()
		if idle { // perhaps for longer than this assignment
			wait, since = int64(p.idleTick(retention)), p.idleSince.Load()
		}
		if now.UnixNano()-since >= wait {
			quiet = append(quiet, p)
		}
	}
	return quiet
}

// freshEnd is how old may be what the partition's leader has said of where it
// ends. It says so every second.
const freshEnd = 5 * time.Second

// read reports whether nothing is left to read, or in hand: a record whose
// rollups wait for the bus is.
func (p *assignment) read(now time.Time) bool {
	heard := now.UnixNano() - p.heard.Load()
	return p.next.Load() >= p.end.Load() && heard < int64(freshEnd) && p.unpublished.Load() == 0
}

// writeTick is given up after seconds, with the publisher's delivery timeout: a tick that
// is late is of no use.
func (r *Runtime) writeTick(p *assignment, now time.Time) {
	msg := r.cfg.Tick(now)
	msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: p.about.Partition, Directed: true}))
	if err := r.publisher.Publish(context.Background(), r.cfg.Topic, msg); err != nil {
		r.metrics.publishFailures.Inc()
		p.logger.Warn("cannot write a tick; the next interval tries again", "err", err)
		return
	}
	r.metrics.ticks.Inc()
}
