package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// assignment is a partition that this worker is assigned, with its machine: a
// bus.Consumer. The member hands out one message of it at a time, so handle is
// never entered twice at the same time.
type assignment struct {
	runtime *Runtime
	about   bus.Assignment
	outbox  pipeline.Outbox
	emit    Emit // into the outbox
	logger  *slog.Logger

	mu          sync.Mutex // between folding, committing and being looked at
	machine     Machine
	offered     int64       // processed-to of the commit that was handed out last
	committedTo int64       // processed-to of the last commit that was made
	offeredOf   oona.Micros // since when the commit that was handed out last needs the log; 0: not known

	next          atomic.Int64 // offset after the last record that was folded
	appended      atomic.Int64 // append time of that record, microseconds; before the first, when the assignment began
	end           atomic.Int64 // offset after the partition's last record, as last heard
	heard         atomic.Int64 // when that was, nanoseconds of the worker's clock
	waiting       atomic.Int64 // since when records have waited without a break, likewise, if they do
	open          atomic.Int64 // Pace.Open
	pending       atomic.Int64 // messages in the outbox
	lastRead      atomic.Int64 // when the last record came, nanoseconds of the worker's clock
	idleSince     atomic.Int64 // when the last record came, or was appended where it was replayed, likewise
	committedAt   atomic.Int64 // when the last commit was made, or the assignment began, likewise
	metadataBytes atomic.Int64 // of the last commit
	needed        atomic.Int64 // since when a restart needs the log, microseconds; 0: not known
	tickInterval  atomic.Int64 // Pace.TickInterval, nanoseconds
	idleTicks     atomic.Int64 // Pace.IdleTicks
	failures      atomic.Int64 // to empty the outbox, since it was empty last
	unpublished   atomic.Int64 // since when the outbox has not been empty, nanoseconds of the worker's clock; 0: it is
	ticking       atomic.Bool  // a tick is on its way
	failed        atomic.Bool  // Fold has failed or panicked: the machine is not used again
	revoked       atomic.Bool
}

// nothingCommitted is an offset up to which no machine has processed.
const nothingCommitted = -1

func newAssignment(r *Runtime, a bus.Assignment, opened Opened) *assignment {
	p := &assignment{
		runtime:     r,
		about:       a,
		machine:     opened.Machine,
		committedTo: opened.Machine.ProcessedTo(),
		logger:      r.logger.With("partition", a.Partition),
	}
	if opened.CommitNow {
		p.committedTo = nothingCommitted
	}
	p.outbox = pipeline.Outbox{Publisher: r.publisher, Dropped: p.drop}
	p.emit = p.outbox.Add
	now := time.Now().UnixNano()
	p.next.Store(opened.From)
	p.appended.Store(now / int64(time.Microsecond))
	p.end.Store(a.LogEnd)
	for _, since := range []*atomic.Int64{&p.heard, &p.waiting, &p.lastRead, &p.idleSince, &p.committedAt} {
		since.Store(now)
	}
	p.followPace()
	p.needed.Store(int64(neededSince(opened.Machine)))
	p.metadataBytes.Store(int64(len(a.Committed.Metadata)))
	return p
}

// neededSince is 0 where the machine does not know: no record is before those
// that a restart needs.
func neededSince(m Machine) oona.Micros {
	since, known := m.NeededSince()
	if !known {
		return 0
	}
	return since
}

func (p *assignment) followPace() {
	pace := p.machine.Pace()
	p.open.Store(int64(pace.Open))
	p.tickInterval.Store(int64(pace.TickInterval))
	p.idleTicks.Store(pace.IdleTicks)
}

// handle folds a record that was not folded before and empties the outbox.
func (p *assignment) handle(msg *message.Message, at bus.Position) error {
	p.lastRead.Store(time.Now().UnixNano())
	if at.Offset >= p.next.Load() {
		err := p.fold(msg, at)
		switch {
		case errors.Is(err, ErrRetry):
			p.tryAgain(msg, at, err)
			return nil
		case errors.Is(err, errFailed): // delivered once more while the worker ends
			bus.Pause(msg.Context(), longestPause)
			msg.Nack()
			return nil
		case err != nil:
			err = fmt.Errorf("%s/%d at offset %d: %w", at.Topic, at.Partition, at.Offset, err)
			p.runtime.end(err)
			return err
		}
	}
	if p.outbox.Len() > 0 {
		p.unpublished.CompareAndSwap(0, time.Now().UnixNano())
	}
	// What was folded is published also when the session ends: then it can be
	// committed before the partition is given up.
	if err := p.outbox.Flush(context.WithoutCancel(msg.Context())); err != nil {
		p.runtime.metrics.publishFailures.Inc()
		if n := p.failures.Add(1); n&(n-1) == 0 {
			p.logger.Warn("cannot publish; retrying until the bus takes it", "messages", p.outbox.Len(), "attempts", n, "waiting", p.refused().Round(time.Millisecond), "err", err)
		}
		p.backOff(msg.Context())
		msg.Nack() // an error would be logged by Watermill, each time
		return nil
	}
	p.failures.Store(0)
	p.unpublished.Store(0)
	p.pending.Store(0)
	return nil
}

// errFailed is returned by fold and ready after the machine has failed.
var errFailed = errors.New("the machine of the partition has failed")

// errNotRetriable replaces an ErrRetry that a machine must not return: what the
// record does would be done twice.
var errNotRetriable = errors.New("the machine asks for a record again after it has emitted or counted it; this is a bug of Oona: please report it")

// fold takes a record through the machine and puts what it emits into the outbox.
func (p *assignment) fold(msg *message.Message, at bus.Position) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed.Load() {
		return errFailed
	}
	intact := false
	defer func() { // also after a panic
		if !intact {
			p.failed.Store(true)
		}
	}()
	// Until the machine knows, what is needed begins with the first record.
	first := p.needed.CompareAndSwap(0, int64(at.Appended))
	before := p.machine.ProcessedTo()
	replayed, err := p.machine.Fold(msg, at, p.emit)
	if errors.Is(err, ErrRetry) && (p.outbox.Len() > 0 || p.machine.ProcessedTo() != before) {
		err = fmt.Errorf("%w: %v", errNotRetriable, err)
	}
	intact = err == nil || errors.Is(err, ErrRetry)
	if err != nil {
		if first {
			p.needed.Store(0)
		}
		return err
	}
	p.followPace()
	p.appended.Store(int64(at.Appended))
	p.pending.Store(int64(p.outbox.Len()))
	if p.idleSince.Store(p.lastRead.Load()); replayed {
		p.idleSince.Store(int64(at.Appended) * int64(time.Microsecond))
	}
	p.next.Store(at.Offset + 1) // once the machine has counted the record
	return nil
}

// tryAgain has a record that cannot be folded now delivered again.
func (p *assignment) tryAgain(msg *message.Message, at bus.Position, err error) {
	if n := p.failures.Add(1); n&(n-1) == 0 {
		p.logger.Warn("cannot fold a record; trying again", "offset", at.Offset, "attempts", n, "err", err)
	}
	p.backOff(msg.Context())
	msg.Nack()
}

// The pause before a redelivery grows from the one to the other.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// backOff waits, the longer the more often it has failed.
func (p *assignment) backOff(ctx context.Context) {
	pause := shortestPause << min(p.failures.Load()-1, 10)
	bus.Pause(ctx, min(pause, longestPause))
}

// drop counts what the bus will never take.
func (p *assignment) drop(topic string, msg *message.Message, err error) {
	p.runtime.metrics.unpublishable.WithLabelValues(topic).Inc()
	p.logger.Error("a record is lost: the bus will never take it", "topic", topic, "bytes", len(msg.Payload), "err", err)
}

// Commit returns the commit of the machine. It returns false if nothing has changed
// since the last commit, or not everything that was emitted is on the bus. It also
// returns false after the machine has failed: it may have counted a record whose
// output is not complete, and a successor would skip that record.
func (p *assignment) Commit() (bus.Commit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed.Load() || p.pending.Load() > 0 || p.machine.Replaying() || p.machine.ProcessedTo() == p.committedTo {
		return bus.Commit{}, false
	}
	c, err := p.machine.Commit()
	if err != nil {
		// The last commit stands, and grows old: that is alarmed on.
		p.runtime.metrics.commits.WithLabelValues("too_large").Inc()
		p.logger.Error("the state does not fit a commit; the last one stands", "err", err)
		return bus.Commit{}, false
	}
	p.offered, p.offeredOf = p.machine.ProcessedTo(), neededSince(p.machine)
	return c, true
}

// Committed notes what became of the last commit.
func (p *assignment) Committed(c bus.Commit, err error) {
	if err != nil {
		p.runtime.metrics.commits.WithLabelValues("failed").Inc()
		p.logger.Warn("a commit failed; the last one stands", "offset", c.Offset, "err", err)
		return
	}
	p.runtime.metrics.commits.WithLabelValues("done").Inc()
	p.committedAt.Store(time.Now().UnixNano())
	p.metadataBytes.Store(int64(len(c.Metadata)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committedTo = p.offered
	if p.offeredOf > 0 {
		p.needed.Store(int64(p.offeredOf))
	}
}

// End notes where the partition's log ends.
func (p *assignment) End(offset int64) {
	now := time.Now().UnixNano()
	if p.next.Load() >= p.end.Load() {
		p.waiting.Store(now)
	}
	p.end.Store(offset)
	p.heard.Store(now)
}

// Revoke ends the assignment.
func (p *assignment) Revoke() {
	p.revoked.Store(true)
	p.runtime.release(p)
}
