package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// history is the history of the configurations and incarnations of a topic's
// partitions, from the logs and from the commits of the group that folds them.
type history struct {
	bus        bus.Bus
	topic      string
	group      string              // of the commits; empty if they are not read
	partitions []*partitionHistory // by number
}

// partitionHistory is the history of one partition up to offset next. Its engine
// starts from the group's commit, or else from the beginning of the log, and folds all
// records as if they had no frames. So it accepts and rejects the same configurations
// as an aggregator.
type partitionHistory struct {
	partition   int32
	start, next int64
	assignment  bus.Assignment // when the history was opened
	appendedAt  oona.Micros    // the greatest append time
	engine      *windows.Engine
	incarnation oona.Incarnation        // of the commit
	timelines   int                     // number of timelines in the commit
	folded      bool                    // a record other than the start of an incarnation was read
	firstFrame  int64                   // offset of the first record that may be a frame, or oona.NoOffset
	committed   bus.Commit              // its offset is oona.NoOffset if there is no commit
	inReach     []windows.Configuration // of the commit
	unknown     string                  // why it is not known which configuration holds, or empty
	found       []foundConfiguration    // in the order of the log
}

// foundConfiguration is a record of the log that changes how the partition is folded:
// a configuration, or the start of an incarnation.
type foundConfiguration struct {
	windows.Configuration
	incarnation *oona.IncarnationStart
	offset      int64
	appendedAt  oona.Micros
	holds       bool
	says        string // whether and since when it holds, or why not
}

// empty reports whether the partition never had a record other than starts of
// incarnations, which precede the first configuration.
func (p *partitionHistory) empty() bool {
	return p.start == 0 && !p.folded && p.committed.Offset == oona.NoOffset
}

// openHistory returns the history of a topic. The log is not read yet.
func openHistory(ctx context.Context, b bus.Bus, topic, group string) (_ *history, err error) {
	h := &history{bus: b, topic: topic, group: group}
	var commits []bus.Commit
	if group != "" { // read before the log, so that no commit is beyond its end
		if commits, err = b.Commits(ctx, group, topic); err != nil {
			return nil, err
		}
	}
	extents, err := b.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	for i, extent := range extents[topic] {
		a := bus.Assignment{Topic: topic, Partition: int32(i), LogStart: extent.Start, LogEnd: extent.End, Committed: bus.Commit{Offset: bus.NoOffset}}
		if i < len(commits) {
			a.Committed = commits[i]
		}
		p, err := h.begin(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", i, err)
		}
		h.partitions = append(h.partitions, p)
	}
	return h, nil
}

// begin returns the history of a partition before its log is read.
func (h *history) begin(ctx context.Context, a bus.Assignment) (*partitionHistory, error) {
	p := &partitionHistory{partition: a.Partition, start: a.LogStart, next: a.LogStart, committed: a.Committed, firstFrame: oona.NoOffset}
	catalogues := windows.Always(func(name string) oona.Metric { return oona.Metric{Name: name} }) // no frames are folded
	defaults := windows.DefaultConfig()
	past, err := aggregate.PastOf(ctx, a, nil)
	if err == nil {
		switch {
		case past.Lost != nil:
			p.unknown = h.lost(a, past)
			p.engine, err = windows.Restart(defaults, catalogues, past.Commit, p.start, a.LogEnd)
		case past.Committed:
			p.engine, err = windows.Resume(defaults, catalogues, past.Commit)
		default:
			p.engine, err = windows.New(defaults, catalogues)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the commit of group %s: %w; give the aggregators' --group, or --group= to use only the log", h.group, err)
	}
	p.assignment, p.incarnation, p.timelines = a, p.engine.Incarnation(), p.engine.Stats().Timelines
	if past.Committed {
		p.inReach = p.engine.Configurations()
	}
	return p, nil
}

// lost returns which part of a partition's history is lost, in words for an operator.
func (h *history) lost(a bus.Assignment, past aggregate.Past) string {
	switch {
	case errors.Is(past.Lost, aggregate.ErrAhead):
		return fmt.Sprintf("group %s had read up to offset %d, but the log ends at %d: it has lost records, or the topic was made again", h.group, past.Reached.ProcessedTo, a.LogEnd)
	case errors.Is(past.Lost, aggregate.ErrOvertaken):
		return fmt.Sprintf("group %s has committed offset %d, but the log begins at %d: configurations in between are lost", h.group, a.Committed.Offset, a.LogStart)
	}
	return "the beginning of the log has been deleted, and " + h.noCommit()
}

// noCommit returns why the partition has no commit.
func (h *history) noCommit() string {
	if h.group == "" {
		return "no --group was given"
	}
	return fmt.Sprintf("group %s has no commit", h.group)
}

// readTogether is how many partitions are read at the same time.
const readTogether = 4

// readOn reads up to where the logs end now.
func (h *history) readOn(ctx context.Context) error {
	extents, err := h.bus.Extents(ctx, h.topic)
	if err != nil {
		return err
	}
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(readTogether)
	for _, p := range h.partitions {
		end := extents[h.topic][p.partition].End
		reading.Go(func() error {
			err := h.bus.Read(ctx, h.topic, bus.Range{Partition: p.partition, From: p.next, End: end}, func(msg *message.Message) error { return h.fold(p, msg) })
			p.next = max(p.next, end) // the last offsets may have no records
			return err
		})
	}
	if err := reading.Wait(); err != nil {
		return fmt.Errorf("read the configurations: %w", err)
	}
	return nil
}

// fold folds a record into the history of its partition.
func (h *history) fold(p *partitionHistory, msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	first := p.empty()
	p.fold(at, msg)
	if first && p.folded && p.unknown == "" && !p.configuredAt(at.Offset) {
		p.unknown = "the log begins without a configuration, so the aggregators' own settings hold, but " + h.noCommit() + " that has them"
	}
	return nil
}

// configuredAt reports whether the last record found is a configuration at offset that
// holds.
func (p *partitionHistory) configuredAt(offset int64) bool {
	if len(p.found) == 0 {
		return false
	}
	last := p.found[len(p.found)-1]
	return last.offset == offset && last.incarnation == nil && last.holds
}

var errLater = errors.New("the configuration is of a later version of Oona, so upgrade this program; or it is damaged, and aggregators skip it with --skip-record")

func (p *partitionHistory) fold(at bus.Position, msg *message.Message) {
	record := windows.Record{Offset: at.Offset, AppendedAt: at.Appended}
	found := foundConfiguration{offset: at.Offset, appendedAt: at.Appended}
	kind := msg.Metadata.Get(oona.HeaderRecord)
	var err error
	switch {
	case kind == oona.IncarnationRecord:
		found.incarnation, err = decodeIncarnation(msg.Payload)
		record.Incarnation = found.incarnation
	case oona.IsConfiguration(kind):
		if found.Configuration, err = decodeConfiguration(kind, msg.Payload); err == nil {
			record.Configuration = &found.Configuration
		}
	}
	outcome := p.engine.Fold(record, nil)
	past := outcome.Verdict == windows.Replayed || outcome.Reason == windows.ReasonProcessed // the commit includes the record
	if oona.IsConfiguration(kind) {
		found.holds = outcome.Reason == windows.ReasonConfigured || outcome.Reason == windows.ReasonBegun
		found.says = outcome.Detail
		switch {
		case errors.Is(err, errLater):
			found.says = err.Error()
			if !past {
				p.unknown = fmt.Sprintf("offset %d: %v", at.Offset, err)
			}
		case err != nil:
			found.says = "a dead letter: " + err.Error()
		case past && found.incarnation != nil:
			found.holds, found.says = p.settledIncarnation(found.incarnation.Number)
		case past:
			found.holds, found.says = p.settled(found.Configuration)
		}
		p.found = append(p.found, found)
	}
	p.folded = p.folded || record.Incarnation == nil
	if kind == "" && p.firstFrame == oona.NoOffset {
		p.firstFrame = at.Offset
	}
	p.appendedAt = max(p.appendedAt, at.Appended)
	p.next = at.Offset + 1
}

// decodeConfiguration decodes a configuration record. The error wraps errLater if
// aggregators of this version stop at the record. Otherwise, an error means that they
// make it a dead letter.
func decodeConfiguration(kind string, payload []byte) (windows.Configuration, error) {
	c, err := aggregate.DecodeConfiguration(kind, payload)
	if aggregate.OfLaterVersion(err) {
		err = fmt.Errorf("%w: %w", errLater, err)
	}
	return c, err
}

// decodeIncarnation decodes the start of an incarnation, with the errors of
// decodeConfiguration.
func decodeIncarnation(payload []byte) (*oona.IncarnationStart, error) {
	start, err := aggregate.DecodeIncarnation(payload)
	if aggregate.OfLaterVersion(err) {
		err = fmt.Errorf("%w: %w", errLater, err)
	}
	if err != nil {
		return nil, err
	}
	return &start, nil
}

// settledIncarnation reports whether an incarnation that began before the commit holds.
func (p *partitionHistory) settledIncarnation(number oona.Incarnation) (holds bool, says string) {
	switch {
	case number == p.incarnation:
		return true, fmt.Sprintf("incarnation %d of the log begins", number)
	case number < p.incarnation:
		return false, fmt.Sprintf("incarnation %d is over, or had no effect", number)
	}
	return false, fmt.Sprintf("incarnation %d has no effect: the group's later commit does not have it", number)
}

// settled reports whether a configuration that was written before the commit holds.
func (p *partitionHistory) settled(c windows.Configuration) (holds bool, says string) {
	for _, r := range p.inReach {
		if r.Config == c.Config {
			return true, standing(r)
		}
	}
	if c.Config.Generation < p.inReach[0].Config.Generation {
		return false, fmt.Sprintf("generation %d is over, or had no effect", c.Config.Generation)
	}
	return false, fmt.Sprintf("generation %d has no effect: the group's later commit does not have it", c.Config.Generation)
}

// standing returns in words since when a configuration of a commit holds.
func standing(c windows.Configuration) string {
	from := "the beginning of the log"
	if c.From != 0 {
		from = c.From.Time().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("generation %d holds from %s", c.Config.Generation, from)
}
