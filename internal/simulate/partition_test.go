package simulate

import (
	"errors"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// partition is a partition of the input topic, with the publications and the commit of its owners, and
// the owners that are alive.
type partition struct {
	flags     windows.Config // settings of the owners; used if the log does not begin with a configuration
	now       oona.Micros
	touched   oona.Micros  // true time of the last append
	skew      oona.Micros  // skew of the leader's clock at the last append
	log       *model.Model // the remaining records, and their expected results
	past      *past        // nil if the log has lost nothing
	published []publication
	committed *committed // nil if there is no commit
	owners    []*owner   // the current owner first, and then zombies, the youngest first
	hashes    map[rollupPlace]uint64

	configured []int64 // offsets of the configurations that are not void, without the first record
	counts     counts
}

// committed is a commit, and how far the owner had processed the log.
type committed struct {
	commit      windows.Commit
	processedTo int64
	flags       windows.Config // settings of the owner, if it had read nothing
}

// publication is a rollup, or a record in a side topic.
type publication struct {
	rollup rollupPlace
	key    rollupKey
	hash   uint64
	end    oona.Micros
	frames int64

	side   bool
	origin int64 // offset of the record
	reason windows.Reason
}

// rollupPlace is the place of a rollup in the order of its topic's readers.
type rollupPlace struct {
	trigger oona.Trigger
	group   oona.Group
}

// rollupKey identifies the window, the layer and the group of a rollup.
type rollupKey struct {
	run      oona.RunID
	timeline oona.TimelineID
	layer    oona.LayerID
	start    oona.Micros
	group    oona.Group
}

func keyOf(r *oona.Rollup) rollupKey { return rollupKey{r.Run, r.Timeline, r.Layer, r.Start, r.Group} }

// counts says how often each event has occurred.
type counts struct {
	records, rollups, ticks, zombieTicks                                 int
	crashes, unpublished, uncommitted, takeOvers, losses, replayed       int
	zombieFolds, zombiePublications, zombieCommits, agedCommits          int
	redelivered, reEmissions, sideRepeats, tooLong, commits, back, leaps int
	verdicts                                                             [windows.VerdictCount]int
	reasons                                                              [len(notFolded)]int
	stillOpen                                                            int
	model                                                                model.Events

	unreadCommits, readAgain, readAnew int // counts of configurations

	beginningsLost, overtaken, rollupsAfterLoss, likeTheWhole int
}

const maxZombies = 3

func newPartition(cfg windows.Config) (*partition, error) {
	p := &partition{flags: cfg, now: origin, touched: origin, log: model.New(cfg, catalogue), hashes: map[rollupPlace]uint64{}}
	return p, p.hire()
}

// append adds a record to the log, with an append time by the leader's clock.
func (p *partition) append(r windows.Record, gap int64, skew oona.Micros) {
	if n := len(p.log.Accounts); n > 0 {
		last := p.log.Accounts[n-1].Record
		r.Offset = last.Offset + 1 + gap
		switch step := p.now + skew - last.AppendedAt; {
		case step <= -15e6:
			p.counts.back++
		case step >= 690e6 && skew != p.skew:
			p.counts.leaps++
		}
	}
	p.skew = skew
	r.AppendedAt = p.now + skew
	p.touched = p.now
	if p.past != nil && p.past.whole != nil {
		p.past.whole.Fold(r)
	}
	p.fold(r)
}

// fold folds the log's next record in the model.
func (p *partition) fold(r windows.Record) {
	p.log.Fold(r)
	if n := len(p.log.Accounts); n > 1 && p.log.Accounts[n-1].Outcome.Reason == windows.ReasonConfigured {
		p.configured = append(p.configured, r.Offset)
	}
}

// hire makes a new owner from the commit. It becomes the current one.
func (p *partition) hire() error {
	o := &owner{p: p}
	var err error
	cfg := p.flags
	if p.counts.crashes%2 > 0 && (p.committed != nil || p.log.Events.Firsts > 0) {
		cfg.Length, cfg.MaxTimelines = 2*cfg.Length, cfg.MaxTimelines+1 // changed flags must make no difference, because the configuration of the commit or the log is used
	}
	if p.committed == nil {
		o.flags = cfg
		o.engine, err = windows.New(cfg, windows.Always(catalogue))
	} else {
		o.engine, err = windows.Resume(cfg, windows.Always(catalogue), p.committed.commit)
		o.flags, o.liveFrom = p.committed.flags, p.committed.processedTo
		o.next, _ = slices.BinarySearchFunc(p.log.Accounts, p.committed.commit.Offset, func(a model.Account, offset int64) int {
			return int(a.Record.Offset - offset)
		})
	}
	if err != nil {
		return fmt.Errorf("a new owner: %w", err)
	}
	for _, offset := range p.configured {
		switch {
		case offset >= o.liveFrom:
			p.counts.readAnew++
		case offset >= p.committed.commit.Offset:
			p.counts.readAgain++
		}
	}
	p.owners = slices.Insert(p.owners, 0, o)
	p.owners = p.owners[:min(len(p.owners), 1+maxZombies)]
	return nil
}

// play carries out an event.
func (p *partition) play(e event) error {
	p.now = max(p.now, e.at)
	if e.owner >= len(p.owners) {
		return nil // there is no such zombie
	}
	o := p.owners[e.owner]
	switch e.kind {
	case appended:
		p.append(e.record, e.gap, e.skew)
	case fold:
		if e.owner > 0 {
			p.counts.zombieFolds++
		}
		return o.fold(e.n)
	case redeliver:
		return o.foldAgain()
	case publish:
		if o.publish(e.n) > 0 && e.owner > 0 {
			p.counts.zombiePublications++
		}
	case snapshot:
		return o.snapshot()
	case commit:
		if o.commit(e.n) {
			p.counts.commits++
			if e.owner > 0 {
				p.counts.zombieCommits++
			}
		}
	case crash:
		p.counts.crashes++
		if len(o.outbox) > 0 {
			p.counts.unpublished++
		} else if p.committed != nil && o.processedTo() > p.committed.processedTo {
			p.counts.uncommitted++
		}
		p.owners = slices.Delete(p.owners, e.owner, e.owner+1)
		if e.owner == 0 {
			return p.hire()
		}
	case takeOver:
		p.counts.takeOvers++
		return p.hire()
	case loseOffsets:
		if p.log.Recovering() {
			return p.loseBeginning(0) // an owner cannot start without a commit
		}
		p.counts.losses++
		p.committed = nil
		return p.hire()
	case loseBeginning:
		return p.loseBeginning(e.bits)
	case quiet:
		return p.beQuiet(e)
	}
	return nil
}

// beQuiet lets tick intervals pass without traffic. The bits say which zombies take part,
// who is first, and whether all decide before any of them has written a tick.
func (p *partition) beQuiet(e event) error {
	bits := e.bits
	for range e.n {
		p.now += oona.Micros(p.log.Config().TickInterval.Microseconds())
		owners := slices.Clone(p.owners)
		if bits&1 != 0 {
			slices.Reverse(owners)
		}
		together := bits&2 != 0
		var ticks int
		for i, o := range owners {
			if o != p.owners[0] && bits&(4<<i) == 0 {
				continue
			}
			if err := o.fold(len(p.log.Accounts)); err != nil {
				return err
			}
			if !o.mayTick() {
				continue
			}
			if o != p.owners[0] {
				p.counts.zombieTicks++
			}
			ticks++
			if !together {
				p.append(windows.Record{}, 0, e.skew)
				ticks = 0
				p.counts.ticks++
			}
		}
		for range ticks {
			p.append(windows.Record{}, 0, e.skew)
			p.counts.ticks++
		}
		bits = bits>>7 | bits<<57
	}
	return nil
}

// finish lets the current owner fold and publish everything. If settle is true, the owner also writes
// ticks until no window is open.
func (p *partition) finish(settle bool) error {
	o := p.owners[0]
	if err := o.fold(len(p.log.Accounts)); err != nil {
		return err
	}
	cfg := p.log.Config()
	tick := oona.Micros(cfg.TickInterval.Microseconds())
	p.now = max(p.now, p.touched+tick)
	horizon := cfg.IdleHorizon
	for _, c := range p.log.Configurations() { // what was seen before a change counts for up to a quarter of the former horizon longer
		horizon = max(horizon, c.IdleHorizon)
	}
	for left := horizon/4*6 + 4*cfg.TickInterval; settle && o.engine.OpenWindows() > 0; left -= cfg.TickInterval {
		if left < 0 {
			return errors.New("windows are still open although no frame has come for longer than the idle horizon")
		}
		p.append(windows.Record{}, 0, 0)
		p.counts.ticks++
		if err := o.fold(1); err != nil {
			return err
		}
		p.now += tick
	}
	o.publish(len(o.outbox))
	return nil
}
