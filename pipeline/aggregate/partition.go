package aggregate

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// partition is the engine of one assignment: its bus.Consumer. The member hands
// out one message of an assignment at a time, so handle is never entered twice at
// the same time.
type partition struct {
	stage      *Stage
	assignment bus.Assignment
	decoder    avro.FrameDecoder
	frame      oona.Frame
	outbox     pipeline.Outbox
	logger     *slog.Logger

	mu          sync.Mutex // between folding, committing and being looked at
	engine      *windows.Engine
	offered     int64 // processed-to of the commit that was handed out last
	committedTo int64 // processed-to of the last commit that was made
	offeredOf   int64 // since when the commit that was handed out last needs the log, microseconds; 0: not known

	next          atomic.Int64 // offset after the last record that was read
	appended      atomic.Int64 // append time of that record, microseconds; before the first, when the claim began
	end           atomic.Int64 // offset after the partition's last record, as last heard
	heard         atomic.Int64 // when that was, nanoseconds of the worker's clock
	waiting       atomic.Int64 // since when records have waited without a break, likewise, if they do
	open          atomic.Int64 // open windows
	pending       atomic.Int64 // messages in the outbox
	lastRead      atomic.Int64 // when the last record came, nanoseconds of the worker's clock
	idleSince     atomic.Int64 // when the last record came, or was appended where it was replayed, likewise
	committedAt   atomic.Int64 // when the last commit was made, or the claim began, likewise
	metadataBytes atomic.Int64 // of the last commit
	needed        atomic.Int64 // since when a restart needs the log, microseconds; 0: not known
	tickInterval  atomic.Int64 // of the engine, nanoseconds
	idleTicks     atomic.Int64 // within the topic's retention, while the partition is idle
	unknown       atomic.Int64 // Oona's own records of kinds that this worker does not know
	mute          bool         // windows are not emitted yet, as the partition began anew; fold's own
	failures      atomic.Int64 // to empty the outbox, since it was empty last
	unpublished   atomic.Int64 // since when the outbox has not been empty, nanoseconds of the worker's clock; 0: it is
	ticking       atomic.Bool  // a tick is on its way
	revoked       atomic.Bool
}

func newPartition(s *Stage, a bus.Assignment, from int64, engine *windows.Engine) *partition {
	p := &partition{
		stage:       s,
		assignment:  a,
		engine:      engine,
		committedTo: engine.ProcessedTo(),
		logger:      s.logger.With("partition", a.Partition),
	}
	p.outbox = pipeline.Outbox{Publisher: s.publisher, Dropped: p.drop}
	now := time.Now().UnixNano()
	p.next.Store(from)
	p.appended.Store(now / int64(time.Microsecond))
	p.end.Store(a.LogEnd)
	p.heard.Store(now)
	p.waiting.Store(now)
	p.lastRead.Store(now)
	p.idleSince.Store(now)
	p.followConfiguration()
	p.committedAt.Store(now)
	p.needed.Store(neededSince(engine))
	p.metadataBytes.Store(int64(len(a.Committed.Metadata)))
	return p
}

// neededSince is 0 where the engine does not know: no record is before those that
// a restart needs.
func neededSince(e *windows.Engine) int64 {
	since, known := e.NeededSince()
	if !known {
		return 0
	}
	return int64(since)
}

// handle folds a record that was not folded before and empties the outbox.
func (p *partition) handle(msg *message.Message, at bus.Position) error {
	p.lastRead.Store(time.Now().UnixNano())
	if at.Offset >= p.next.Load() {
		err := p.fold(msg, at)
		if errors.Is(err, errRetry) {
			p.tryAgain(msg, at, err)
			return nil
		}
		if err != nil {
			err = fmt.Errorf("partition %d, offset %d: %w", p.assignment.Partition, at.Offset, err)
			p.stage.end(err)
			return err
		}
	}
	if p.outbox.Len() > 0 {
		p.unpublished.CompareAndSwap(0, time.Now().UnixNano())
	}
	if err := p.outbox.Flush(context.WithoutCancel(msg.Context())); err != nil {
		p.stage.metrics.publishFailures.Inc()
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

// tryAgain has a record that cannot be folded now delivered again.
func (p *partition) tryAgain(msg *message.Message, at bus.Position, err error) {
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

// backOff waits, the longer the more often publishing has failed.
func (p *partition) backOff(ctx context.Context) {
	pause := shortestPause << min(p.failures.Load()-1, 10)
	pipeline.Pause(ctx, min(pause, longestPause))
}

// End notes where the partition's log ends.
func (p *partition) End(offset int64) {
	now := time.Now().UnixNano()
	if p.next.Load() >= p.end.Load() {
		p.waiting.Store(now)
	}
	p.end.Store(offset)
	p.heard.Store(now)
}

// Revoke ends the assignment.
func (p *partition) Revoke() {
	p.revoked.Store(true)
	p.stage.disown(p)
	p.stage.logger.Info("partition released", "topic", p.assignment.Topic, "partition", p.assignment.Partition)
}

// longSilence makes a worker unready: the leader of a partition has not said
// where it ends, or records wait there and none has come. To elect another
// leader takes less.
const longSilence = 30 * time.Second

// longestWait is how long a partition's outbox may wait for the bus before the
// worker is not ready.
const longestWait = 30 * time.Second

// refused returns how long the outbox has not been empty.
func (p *partition) refused() time.Duration {
	since := p.unpublished.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// ready returns why the partition is not, or nil.
func (p *partition) ready() error {
	if refused := p.refused(); refused > longestWait {
		return fmt.Errorf("the rollups of partition %d have waited %s for the bus, which has refused them %d times: see the log", p.assignment.Partition, refused.Round(time.Second), p.failures.Load())
	}
	if next := p.next.Load(); next < p.assignment.LogEnd {
		return fmt.Errorf("%w: partition %d is at offset %d of %d", errCatchingUp, p.assignment.Partition, next, p.assignment.LogEnd)
	}
	now := time.Now().UnixNano()
	if silent := time.Duration(now - p.heard.Load()); silent > longSilence {
		return fmt.Errorf("%w: of partition %d it was last heard %s ago", errUnheard, p.assignment.Partition, silent.Round(time.Second))
	}
	waited := time.Duration(now - max(p.waiting.Load(), p.lastRead.Load()))
	if next, end := p.next.Load(), p.end.Load(); next < end && waited > longSilence {
		return fmt.Errorf("%w: partition %d is at offset %d of %d, and nothing has come for %s; restart the worker if its leader can be reached", errStalled, p.assignment.Partition, next, end, waited.Round(time.Second))
	}
	return nil
}

// drop counts what the bus will never take.
func (p *partition) drop(topic string, msg *message.Message, err error) {
	p.stage.metrics.unpublishable.WithLabelValues(topic).Inc()
	p.logger.Error("a record is lost: the bus will never take it", "topic", topic, "bytes", len(msg.Payload), "err", err)
}

// fold takes a record through the engine and puts what comes of it into the
// outbox. Whatever the record holds, time passes, unless it is an ErrUpgrade.
func (p *partition) fold(msg *message.Message, at bus.Position) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	record := windows.Record{
		Offset:     at.Offset,
		AppendedAt: at.Appended,
		Path:       msg.Metadata.Get(oona.HeaderPath),
	}
	verdict := verdictOwn
	var side rejection
	kind := msg.Metadata.Get(oona.HeaderRecord)
	switch {
	case kind == "":
		verdict, side = p.decode(msg.Payload, &record)
	case oona.IsConfiguration(kind):
		if verdict, side, err = p.configuration(kind, msg.Payload, &record); err != nil {
			return err
		}
	}
	// Until the engine knows, what is needed begins with the first record.
	p.needed.CompareAndSwap(0, int64(at.Appended))
	outcome := p.engine.Fold(record, p.emit)
	if p.mute {
		p.noteMute(&record)
	}
	p.followConfiguration()
	p.appended.Store(int64(at.Appended))
	p.open.Store(int64(p.engine.OpenWindows()))
	defer p.next.Store(at.Offset + 1) // once the record is counted: see Counts
	p.idleSince.Store(p.lastRead.Load())
	if outcome.Verdict == windows.Replayed { // decided, and published, before the commit
		p.idleSince.Store(int64(at.Appended) * int64(time.Microsecond))
		p.stage.metrics.replay()
		return nil
	}
	switch {
	case record.Frame != nil:
		verdict, side = p.judge(outcome)
	case record.Configuration != nil:
		p.noteConfiguration(outcome, at)
	case record.Incarnation != nil:
		p.noteIncarnation(outcome, at)
	case kind != "" && kind != oona.TickRecord && !oona.IsConfiguration(kind):
		p.noteUnknown(kind, at)
	}
	if side.topic != "" {
		at.Incarnation = p.engine.Incarnation()
		p.outbox.Add(side.topic, pipeline.SideMessage(msg, at, pipeline.Rejection{Stage: "aggregate", Reason: side.reason, Detail: side.detail}))
		p.logDrop(verdict, side, at)
	}
	p.pending.Store(int64(p.outbox.Len()))
	p.stage.metrics.count(verdict, side.reason)
	return nil
}

// Why a record goes to a side topic before the engine has looked at it.
const (
	reasonUndecodable = "undecodable"
	reasonInvalid     = "invalid"
	reasonSize        = "size"
)

// rejection says which side topic a record goes to, and why.
type rejection struct {
	topic  string
	reason string
	detail string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// decode sets record's frame and checksum, or returns why it cannot.
func (p *partition) decode(payload []byte, record *windows.Record) (verdict, rejection) {
	rest, err := p.decoder.Decode(payload, &p.frame)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the frame; a record holds one", len(rest))
	}
	if err != nil {
		return verdictDead, rejection{p.stage.cfg.Topics.SeedMetricsDead, reasonUndecodable, err.Error()}
	}
	err = p.frame.Validate(p.stage.cfg.Limits)
	if errors.Is(err, oona.ErrTooLarge) {
		return verdictOverflowed, rejection{p.stage.cfg.Topics.Overflow, reasonSize, err.Error()}
	}
	if err != nil {
		return verdictDead, rejection{p.stage.cfg.Topics.SeedMetricsDead, reasonInvalid, err.Error()}
	}
	body, err := avro.Body(payload)
	if err != nil {
		return verdictDead, rejection{p.stage.cfg.Topics.SeedMetricsDead, reasonUndecodable, err.Error()}
	}
	record.Frame = &p.frame
	record.Checksum = uint64(crc32.Checksum(body, castagnoli))<<32 | uint64(uint32(len(body)))
	return verdictFolded, rejection{}
}

// judge translates the engine's outcome for a frame.
func (p *partition) judge(o windows.Outcome) (verdict, rejection) {
	topics := &p.stage.cfg.Topics
	switch o.Verdict {
	case windows.Folded:
		return verdictFolded, rejection{}
	case windows.Duplicate:
		return verdictDuplicate, rejection{}
	case windows.Late:
		return verdictLate, rejection{topics.Late, string(o.Reason), o.Detail}
	case windows.Quarantined:
		return verdictQuarantined, rejection{topics.Quarantine, string(o.Reason), o.Detail}
	case windows.Overflowed:
		return verdictOverflowed, rejection{topics.Overflow, string(o.Reason), o.Detail}
	}
	panic(fmt.Sprintf("aggregate: the engine returned verdict %d for a frame", o.Verdict))
}

// emit is called by the engine for each rollup, valid only during the call.
func (p *partition) emit(r *oona.Rollup) {
	msg := bus.NewMessage(avro.AppendRollup(nil, r), bus.Target{Key: oona.Key(r.Run, r.Layer), Partition: p.assignment.Partition, Directed: true})
	p.outbox.Add(p.stage.cfg.Topics.Rollup(r.Group), msg)
	p.stage.metrics.rollups[r.Group].Add(1)
}

// logDrop writes a line for the 1st, 2nd, 4th, 8th ... drop of a verdict: none
// is silent, and a flood does not flood the log.
func (p *partition) logDrop(v verdict, side rejection, at bus.Position) {
	n := p.stage.metrics.verdicts[v].Load() + 1
	if n&(n-1) != 0 {
		return
	}
	p.logger.Warn("record went to a side topic", "topic", side.topic, "reason", side.reason,
		"detail", side.detail, "offset", at.Offset, "such_so_far", n)
}
