package aggregate

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// machine folds the records of one partition with a window engine. It is a
// partition.Machine.
type machine struct {
	folder  *Folder
	about   bus.Assignment
	engine  *windows.Engine
	decoder avro.FrameDecoder
	frame   oona.Frame
	logger  *slog.Logger
	traces  *traces // nil if there are no traces

	out      partition.Emit // set during Fold
	unknown  int64          // number of Oona's own records of unknown kinds
	withheld bool           // whether no windows are emitted yet because the partition's past is lost
}

// Fold decodes a record and folds it with the engine. Unless it returns an error, the record
// advances the log clock, whatever its content is.
func (p *machine) Fold(msg *message.Message, at bus.Position, emit partition.Emit) (replayed bool, err error) {
	record := windows.Record{
		Offset:     at.Offset,
		AppendedAt: at.Appended,
		Path:       msg.Metadata.Get(oona.HeaderPath),
	}
	verdict := verdictOwn
	var side rejection
	kind := msg.Metadata.Get(oona.HeaderRecord)
	switch {
	case kind == "" && slices.Contains(p.folder.cfg.Skip, RecordAt{p.about.Partition, at.Offset}):
		verdict, side = verdictDead, rejection{p.folder.cfg.Topics.SeedMetricsDead, reasonSkipped, "the aggregator was told to skip it (--skip-record)"}
	case kind == "":
		verdict, side = p.decode(msg.Payload, &record)
	case oona.IsConfiguration(kind):
		if verdict, side, err = p.configuration(kind, msg.Payload, &record); err != nil {
			return false, err
		}
	}
	p.out = emit
	p.traces.begin(at.Appended)
	outcome := p.engine.Fold(record, p.emit)
	p.out = nil
	if p.traces != nil {
		in := outcome.Verdict == windows.Folded || outcome.Verdict == windows.Duplicate || outcome.Verdict == windows.Replayed && p.engine.ReplayedOpen()
		p.traces.keep(record.Frame, at.Offset, msg.Metadata.Get(oona.HeaderTraceparent), in, p.engine.OpenWindows())
	}
	if p.withheld {
		if err := p.noteLossEnd(&record); err != nil {
			return false, err
		}
	}
	if outcome.Verdict == windows.Replayed { // the output of the record was published before the commit
		p.folder.metrics.replay()
		return true, nil
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
		emit(side.topic, pipeline.SideMessage(msg, at, pipeline.Rejection{Stage: "aggregate", Reason: side.reason, Detail: side.detail}))
		p.logDrop(verdict, side, at, msg.Metadata.Get(oona.HeaderTraceparent))
	}
	p.folder.metrics.count(verdict, side.reason)
	return false, nil
}

// ProcessedTo returns the offset after the last record that was processed.
func (p *machine) ProcessedTo() int64 { return p.engine.ProcessedTo() }

// Replaying reports whether the engine is still rebuilding its open windows.
func (p *machine) Replaying() bool { return p.engine.Replaying() }

// NeededSince returns the append time of the oldest record that the open windows
// need, if it is known.
func (p *machine) NeededSince() (oona.Micros, bool) { return p.engine.NeededSince() }

// leastIdleTicks is the minimum number of ticks that an idle partition gets within the time
// for which the topic keeps a record.
const leastIdleTicks = 200

// Pace returns how often the engine's configuration needs ticks.
//
// A restart needs the records of at least the last idle horizon of the log clock. Without new
// records the clock would stop, and retention would delete the records that a restart needs. A
// tick advances the clock by two intervals at most. So IdleTicks ticks advance it by up to twice the
// horizon.
func (p *machine) Pace() partition.Pace {
	cfg := p.engine.Config()
	return partition.Pace{
		Open:         p.engine.OpenWindows(),
		TickInterval: cfg.TickInterval,
		IdleTicks:    max(leastIdleTicks, int64(cfg.IdleHorizon/cfg.TickInterval)),
	}
}

// Reasons why a record goes to a side topic without being folded.
const (
	reasonUndecodable = "undecodable"
	reasonInvalid     = "invalid"
	reasonSize        = "size"
	reasonSkipped     = "skipped"
)

// rejection says which side topic a record goes to, and why.
type rejection struct {
	topic  string
	reason string
	detail string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// decode sets the frame and the checksum of a record. If it cannot, it returns a rejection.
func (p *machine) decode(payload []byte, record *windows.Record) (verdict, rejection) {
	rest, err := p.decoder.Decode(payload, &p.frame)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the frame; a record must have only one frame", len(rest))
	}
	if err != nil {
		return verdictDead, rejection{p.folder.cfg.Topics.SeedMetricsDead, reasonUndecodable, err.Error()}
	}
	err = p.frame.Validate(p.folder.cfg.Limits)
	if errors.Is(err, oona.ErrTooLarge) {
		return verdictOverflowed, rejection{p.folder.cfg.Topics.Overflow, reasonSize, err.Error()}
	}
	if err != nil {
		return verdictDead, rejection{p.folder.cfg.Topics.SeedMetricsDead, reasonInvalid, err.Error()}
	}
	body, err := avro.Body(payload)
	if err != nil {
		return verdictDead, rejection{p.folder.cfg.Topics.SeedMetricsDead, reasonUndecodable, err.Error()}
	}
	record.Frame = &p.frame
	record.Checksum = uint64(crc32.Checksum(body, castagnoli))<<32 | uint64(uint32(len(body)))
	return verdictFolded, rejection{}
}

// judge returns the verdict for the engine's outcome of a frame.
func (p *machine) judge(o windows.Outcome) (verdict, rejection) {
	topics := &p.folder.cfg.Topics
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

// emit is called by the engine for each rollup. The rollup is valid only during the
// call.
func (p *machine) emit(r *oona.Rollup) {
	msg := bus.NewMessage(avro.AppendRollup(nil, r), bus.Target{Key: oona.Key(r.Run, r.Layer), Partition: p.about.Partition, Directed: true})
	if p.traces != nil {
		msg.Metadata.Set(oona.HeaderTraceparent, p.traces.rollup(r))
	}
	p.out(p.folder.cfg.Topics.Rollup(r.Group), msg)
	p.folder.metrics.rollups[r.Group].Add(1)
}

// logDrop logs the 1st, 2nd, 4th, 8th ... record of a verdict, so that many records do
// not flood the log.
func (p *machine) logDrop(v verdict, side rejection, at bus.Position, traceparent string) {
	n := p.folder.metrics.verdicts[v].Load() + 1
	if n&(n-1) != 0 {
		return
	}
	logger := p.logger
	if c, ok := tracing.Parse(traceparent); ok {
		logger = logger.With("trace_id", c.Trace.String())
	}
	level, what := slog.LevelWarn, "record went to a side topic"
	if p.folder.metrics.running == nil { // without a Stage, nothing is sent to side topics
		level, what = slog.LevelInfo, "record is in no rollup, because the aggregator sends it to a side topic"
	}
	logger.Log(context.Background(), level, what, "topic", side.topic, "reason", side.reason,
		"detail", side.detail, "offset", at.Offset, "count", n)
}
