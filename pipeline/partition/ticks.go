package partition

import (
	"context"
	"sync"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// writeTicks appends a tick to every assigned partition that has something open and had no
// record for a tick interval, so that the time of its log advances. Idle partitions get
// ticks at longer intervals.
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

// LeastTick is the minimum time between two searches for quiet partitions. With a shorter
// one, a worker would spend most of its time on them.
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

// quietPartitions returns the partitions that need a tick. All their records were read, and
// one of two things is true: they have something open and had no record for a tick
// interval; or they are idle, had records before, and had none for a longer time.
func (r *Runtime) quietPartitions(now time.Time) []*assignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	retention := time.Duration(r.retention.Load())
	var quiet []*assignment
	for p := range r.held {
		// The order matters: a record that arrives now changes the times that are read next.
		idle := p.open.Load() == 0
		if idle && p.next.Load() == 0 || !p.caughtUp(now) {
			continue
		}
		// A tick is read a little after the time at which it was due. If the next one
		// waited for a whole interval after that, every second tick would be skipped.
		wait, since := p.tickInterval.Load()*9/10, p.lastRead.Load()
		if idle { // the partition may have been idle since before this assignment
			wait, since = int64(p.idleTick(retention)), p.idleSince.Load()
		}
		if now.UnixNano()-since >= wait {
			quiet = append(quiet, p)
		}
	}
	return quiet
}

// freshEnd is the maximum age of the leader's last report of the end of the log. The leader
// is asked every second.
const freshEnd = 5 * time.Second

// caughtUp reports whether all records are folded and all output is published.
func (p *assignment) caughtUp(now time.Time) bool {
	heard := now.UnixNano() - p.heard.Load()
	return p.next.Load() >= p.end.Load() && heard < int64(freshEnd) && p.stuckSince.Load() == 0
}

// writeTick gives up after the publisher's delivery timeout of some seconds, because a late
// tick has no use.
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
