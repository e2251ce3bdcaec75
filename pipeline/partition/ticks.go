package partition

import (
	"context"
	"sync"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// writeTicks appends a tick to every assigned partition that had no record for a tick
// interval and has something open, so that time passes there. Idle partitions get
// a tick now and then.
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
				// A tick that cannot be written must not delay the others.
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

// LeastTick is the shortest time between two looks for quiet partitions. With less,
// a worker would do little else.
const LeastTick = 10 * time.Millisecond

// shortestTick returns the shortest tick interval of the worker's settings and of
// the machines.
func (r *Runtime) shortestTick() time.Duration {
	shortest := r.cfg.TickInterval
	for _, p := range r.assignments() {
		shortest = min(shortest, time.Duration(p.tickInterval.Load()))
	}
	return max(shortest, LeastTick)
}

// mostIdle is the longest time that an idle partition waits for a tick.
const mostIdle = 15 * time.Minute

// idleTick returns how long the partition waits for a tick when it is idle.
func (p *assignment) idleTick(retention time.Duration) time.Duration {
	ticks := p.idleTicks.Load()
	if retention == 0 || ticks <= 0 {
		return mostIdle
	}
	return min(max(retention/time.Duration(ticks), time.Second), mostIdle)
}

// quietPartitions returns the partitions that need a tick. They are read to the end,
// and either have something open and had no record for a tick interval, or are
// idle, had records before, and had none for longer.
func (r *Runtime) quietPartitions(now time.Time) []*assignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	retention := time.Duration(r.retention.Load())
	var quiet []*assignment
	for p := range r.held {
		// In this order: a record that comes now changes the times that are read next.
		idle := p.open.Load() == 0
		if idle && p.next.Load() == 0 || !p.caughtUp(now) {
			continue
		}
		// Ticks are read a little after they were due. Waiting for the whole
		// interval would then skip every second one.
		wait, since := p.tickInterval.Load()*9/10, p.lastRead.Load()
		if idle { // perhaps since before this assignment
			wait, since = int64(p.idleTick(retention)), p.idleSince.Load()
		}
		if now.UnixNano()-since >= wait {
			quiet = append(quiet, p)
		}
	}
	return quiet
}

// freshEnd is the greatest age of the leader's answer where the log ends. The leader
// is asked every second.
const freshEnd = 5 * time.Second

// caughtUp reports whether all records are folded and all output is published.
func (p *assignment) caughtUp(now time.Time) bool {
	heard := now.UnixNano() - p.heard.Load()
	return p.next.Load() >= p.end.Load() && heard < int64(freshEnd) && p.stuckSince.Load() == 0
}

// writeTick gives up after the publisher's delivery timeout of some seconds, since
// a late tick is of no use.
func (r *Runtime) writeTick(p *assignment, now time.Time) {
	msg := r.cfg.Tick(now)
	msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: p.about.Partition, Directed: true}))
	if err := r.publisher.Publish(context.Background(), r.cfg.Topic, msg); err != nil {
		r.metrics.publishFailures.Inc()
		p.logger.Warn("cannot write a tick; the next one is tried after the tick interval", "err", err)
		return
	}
	r.metrics.ticks.Inc()
}
