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

// assignment is a partition that is assigned to this worker, with its machine. It is
// a bus.Consumer. The member delivers one message of a partition at a time, so handle
// is never called concurrently.
type assignment struct {
	runtime *Runtime
	about   bus.Assignment
	outbox  pipeline.Outbox
	emit    Emit // adds a message to the outbox
	logger  *slog.Logger

	mu            sync.Mutex // guards the machine and the fields up to the blank line
	machine       Machine
	offeredTo     int64       // processed-to of the last commit that was offered to the bus
	offeredNeeded oona.Micros // NeededSince of that commit; 0 if it is not known
	committedTo   int64       // processed-to of the last commit that was made

	next          atomic.Int64 // offset after the last record that was folded
	appended      atomic.Int64 // append time of that record in microseconds; before the first record, the start of the assignment
	end           atomic.Int64 // end of the log, as the leader last reported it
	open          atomic.Int64 // Pace.Open
	tickInterval  atomic.Int64 // Pace.TickInterval, nanoseconds
	idleTicks     atomic.Int64 // Pace.IdleTicks
	pending       atomic.Int64 // messages in the outbox
	failures      atomic.Int64 // failed attempts to fold or to publish, since the last success
	metadataBytes atomic.Int64 // size of the metadata of the last commit
	needed        atomic.Int64 // append time in microseconds of the oldest record that a restart needs; 0 if it is not known
	// Times, in nanoseconds of the worker's clock:
	heard       atomic.Int64 // when the leader last reported the end of the log
	waiting     atomic.Int64 // since when records have been waiting in the log; 0 if none are
	lastRead    atomic.Int64 // when the last record arrived
	idleSince   atomic.Int64 // when the last record arrived; for a replayed record, when it was appended
	committedAt atomic.Int64 // when the last commit was made, or the assignment began
	stuckSince  atomic.Int64 // since when a record could not be folded or its output could not be published; 0 if all is well

	ticking atomic.Bool // a tick is being written
	failed  atomic.Bool // Fold has failed or panicked: the machine is not used again
	revoked atomic.Bool
}

// nothingCommitted differs from every ProcessedTo, so that a commit is due.
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

// neededSince returns the machine's NeededSince, or 0 if the machine does not know it.
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

// handle folds a record, unless it was folded before, and publishes the messages in the outbox.
func (p *assignment) handle(msg *message.Message, at bus.Position) error {
	p.lastRead.Store(time.Now().UnixNano())
	if at.Offset >= p.next.Load() {
		err := p.fold(msg, at)
		switch {
		case errors.Is(err, ErrRetry):
			p.tryAgain(msg, at, err)
			return nil
		case errors.Is(err, errFailed): // the record was delivered once more while the worker ends
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
		p.stuckSince.CompareAndSwap(0, time.Now().UnixNano())
	}
	// The output is published even if the session ends, so that it can be
	// committed before the partition is given up.
	if err := p.outbox.Flush(context.WithoutCancel(msg.Context())); err != nil {
		p.runtime.metrics.publishFailures.Inc()
		if n := p.failures.Add(1); n&(n-1) == 0 {
			p.logger.Warn("cannot publish; trying again until the bus accepts it", "messages", p.outbox.Len(), "attempts", n, "waiting", p.stuckFor().Round(time.Millisecond), "err", err)
		}
		p.backOff(msg.Context())
		msg.Nack() // if this returned the error, Watermill would log it each time
		return nil
	}
	p.failures.Store(0)
	p.stuckSince.Store(0)
	p.pending.Store(0)
	return nil
}

// errFailed is returned by fold and ready after the machine has failed.
var errFailed = errors.New("the machine of the partition has failed")

// errNotRetriable replaces an ErrRetry that a machine must not return, because it has already
// changed its state or emitted something: a second attempt would do that twice.
var errNotRetriable = errors.New("the machine asks for a record again after it has emitted or counted it; this is a bug of Oona: please report it")

// fold passes a record to the machine. The messages that the machine emits go to the outbox.
func (p *assignment) fold(msg *message.Message, at bus.Position) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed.Load() {
		return errFailed
	}
	intact := false
	defer func() { // runs after a panic, too
		if !intact {
			p.failed.Store(true)
		}
	}()
	// At first, a restart needs this record. Later, the machine knows which record it needs.
	first := p.needed.CompareAndSwap(0, int64(at.Appended))
	before := p.machine.ProcessedTo()
	replayed, err := p.machine.Fold(msg, at, p.emit)
	if errors.Is(err, ErrRetry) && (p.outbox.Len() > 0 || p.machine.ProcessedTo() != before) {
		err = fmt.Errorf("%w: %s", errNotRetriable, err.Error()) // it must no longer be an ErrRetry
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
	p.next.Store(at.Offset + 1)
	return nil
}

// tryAgain arranges that a record that cannot be folded now is delivered again.
func (p *assignment) tryAgain(msg *message.Message, at bus.Position, err error) {
	p.stuckSince.CompareAndSwap(0, time.Now().UnixNano())
	if n := p.failures.Add(1); n&(n-1) == 0 {
		p.logger.Warn("cannot fold a record; trying again", "offset", at.Offset, "attempts", n, "err", err)
	}
	p.backOff(msg.Context())
	msg.Nack()
}

// The pause before a redelivery doubles with each failure.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// backOff waits before a redelivery.
func (p *assignment) backOff(ctx context.Context) {
	pause := shortestPause << min(p.failures.Load()-1, 10)
	bus.Pause(ctx, min(pause, longestPause))
}

// drop counts and logs a message that the bus will never accept.
func (p *assignment) drop(topic string, msg *message.Message, err error) {
	p.runtime.metrics.unpublishable.WithLabelValues(topic).Inc()
	p.logger.Error("a record is lost: it is too large for its topic", "topic", topic, "bytes", len(msg.Payload), "err", err)
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
		// The last commit stays valid. An alert fires when it gets too old.
		p.runtime.metrics.commits.WithLabelValues("too_large").Inc()
		p.logger.Error("the state is too large for a commit; the last commit stays valid", "err", err)
		return bus.Commit{}, false
	}
	p.offeredTo, p.offeredNeeded = p.machine.ProcessedTo(), neededSince(p.machine)
	return c, true
}

// Committed records the result of the last commit.
func (p *assignment) Committed(c bus.Commit, err error) {
	if err != nil {
		p.runtime.metrics.commits.WithLabelValues("failed").Inc()
		p.logger.Warn("a commit failed; the last commit stays valid", "offset", c.Offset, "err", err)
		return
	}
	p.runtime.metrics.commits.WithLabelValues("done").Inc()
	p.committedAt.Store(time.Now().UnixNano())
	p.metadataBytes.Store(int64(len(c.Metadata)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committedTo = p.offeredTo
	if p.offeredNeeded > 0 {
		p.needed.Store(int64(p.offeredNeeded))
	}
}

// End records the end of the partition's log.
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
