package aggregate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// writeTicks appends a tick to every claimed partition that has been quiet for
// a tick interval while windows are open there, so that their time goes on, and
// now and then to one that is idle.
func (s *Stage) writeTicks(ctx context.Context) error {
	timer := time.NewTimer(s.shortestTick())
	defer timer.Stop()
	var writing sync.WaitGroup
	defer writing.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-timer.C:
			timer.Reset(s.shortestTick())
			for _, p := range s.quietPartitions(now) {
				// One that cannot be written must not keep the others from it.
				if p.ticking.CompareAndSwap(false, true) {
					writing.Go(func() {
						defer p.ticking.Store(false)
						s.writeTick(p, now)
					})
				}
			}
		}
	}
}

// leastTick is how often quiet partitions are looked at, at most: a worker that
// does so all the time has no time left.
const leastTick = 10 * time.Millisecond

// CheckWindows says what is wrong with windows that are to be folded here. What a
// log says is folded all the same, with fewer ticks. It returns a
// *oona.FieldError.
func CheckWindows(cfg windows.Config) error {
	if cfg.TickInterval > 0 && cfg.TickInterval < leastTick {
		return &oona.FieldError{Field: "TickInterval", Reason: fmt.Sprintf("is %s; it is at least %s, or an idle aggregator is busy with looking at the time", cfg.TickInterval, leastTick)}
	}
	return cfg.Validate()
}

// shortestTick is the shortest tick interval of the worker's settings and of
// its partitions' logs.
func (s *Stage) shortestTick() time.Duration {
	shortest := s.cfg.Windows.TickInterval
	for _, p := range s.owned() {
		shortest = min(shortest, time.Duration(p.tickInterval.Load()))
	}
	return max(shortest, leastTick)
}

// followConfiguration notes how often the engine's configuration wants ticks.
//
// What a restart needs is at least the last idle horizon of the log clock, which
// stands still where nothing comes, and would be deleted in time. A tick carries
// the clock on by two intervals at most: so many as are noted carry it twice as
// far as the horizon.
func (p *partition) followConfiguration() {
	cfg := p.engine.Config()
	p.tickInterval.Store(int64(cfg.TickInterval))
	p.idleTicks.Store(max(leastIdleTicks, int64(cfg.IdleHorizon/cfg.TickInterval)))
}

// leastIdleTicks are how many ticks an idle partition gets, at least, within the
// time that the topic keeps a record.
const leastIdleTicks = 200

// mostIdle is how long an idle partition waits for a tick at most.
const mostIdle = 15 * time.Minute

// idleTick is how long the partition, when it is idle, waits for a tick.
func (p *partition) idleTick(retention time.Duration) time.Duration {
	if retention == 0 {
		return mostIdle
	}
	return min(max(retention/time.Duration(p.idleTicks.Load()), time.Second), mostIdle)
}

// quietPartitions are those that have windows open and had no record for a tick
// interval, as there was none: then only a tick can close them. Those without
// open windows are idle, if anything was ever written to them.
func (s *Stage) quietPartitions(now time.Time) []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	retention := time.Duration(s.retention.Load())
	var quiet []*partition
	for p := range s.partitions {
		// In this order: a record that is read meanwhile is noted by when it was.
		idle := p.open.Load() == 0
		if idle && p.next.Load() == 0 || !p.read(now) {
			continue
		}
		// The interval is measured with some play: a tick that is read just
		// after it was due must not cost the next one.
		wait, since := p.tickInterval.Load()*9/10, p.lastRead.Load()
		if idle { // for longer than this claim, it may be
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
func (p *partition) read(now time.Time) bool {
	heard := now.UnixNano() - p.heard.Load()
	return p.next.Load() >= p.end.Load() && heard < int64(freshEnd) && p.unpublished.Load() == 0
}

// writeTick is given up after seconds, with the publisher's patience: a tick that
// is late is of no use.
func (s *Stage) writeTick(p *partition, now time.Time) {
	msg := bus.NewMessage(avro.AppendTick(nil, oona.Tick{Worker: s.cfg.Worker, WrittenAt: oona.MicrosOf(now)}), bus.Target{Partition: p.assignment.Partition, Directed: true})
	msg.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
	if err := s.publisher.Publish(context.Background(), s.cfg.Topics.SeedMetrics, msg); err != nil {
		s.metrics.publishFailures.Inc()
		p.logger.Warn("cannot write a tick; the next interval tries again", "err", err)
		return
	}
	s.metrics.ticks.Inc()
}
