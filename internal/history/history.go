// Package history finds out which configurations and incarnations the log of a topic has, whether
// the topics of an installation agree, and which effect a new configuration would have.
package history

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

// History is the history of the configurations and incarnations of a topic's
// partitions, from the logs and from the commits of the group that folds them.
type History struct {
	Bus        bus.Bus
	Topic      string
	Group      string       // group whose commits are read; empty if they are not read
	Partitions []*Partition // ordered by number
}

// Partition is the history of one partition, as far as its log was read.
type Partition struct {
	Number      int32
	Start, Next int64 // the first offset of the log, and the next one to read
	// Engine starts from the group's commit, or else from the beginning of the log. It
	// folds all records up to Next as if they had no frames. So it accepts and rejects
	// the same configurations as an aggregator.
	Engine    *windows.Engine
	Committed bus.Commit              // its offset is oona.NoOffset if there is no commit
	InReach   []windows.Configuration // configurations in the commit for which frames may still arrive
	// Unknown is the reason why it is not known which configuration is in effect, or nil if
	// it is known. It wraps ErrNoConfiguration, ErrLaterVersion, or the reason why an
	// aggregator refuses the partition, such as aggregate.ErrAhead.
	Unknown error
	Found   []Found // records that were found, in the order of the log

	assignment  bus.Assignment   // state of the partition when the history was opened
	appendedAt  oona.Micros      // the greatest append time
	incarnation oona.Incarnation // incarnation in the commit
	timelines   int              // number of timelines in the commit
	folded      bool             // whether a record other than the start of an incarnation was read
	firstFrame  int64            // offset of the first record that may be a frame, or oona.NoOffset
}

// Found is a record of the log that changes how the partition is folded:
// a configuration, or the start of an incarnation.
type Found struct {
	windows.Configuration
	Incarnation *oona.IncarnationStart // nil for a configuration
	Offset      int64
	AppendedAt  oona.Micros
	Holds       bool
	Says        string // text that says since when it is in effect, or why it is not
}

// Partition.Unknown wraps one of these reasons, or an error of package aggregate.
var (
	// ErrNoConfiguration means that the log begins without a configuration, and no commit
	// says what the aggregators' own settings are.
	ErrNoConfiguration = errors.New("the log begins without a configuration, so the aggregators' own settings hold")
	// ErrLaterVersion means that this program cannot read a configuration.
	ErrLaterVersion = errors.New("the configuration is of a later version of Oona, so upgrade this program; or it is damaged, and aggregators skip it with --skip-record")
)

// lostError says which part of a partition's history is lost.
type lostError struct {
	says  string
	cause error // the reason why an aggregator refuses the partition
}

func (e *lostError) Error() string { return e.says }

func (e *lostError) Unwrap() error { return e.cause }

// Empty reports whether the partition never had a record other than starts of
// incarnations, which precede the first configuration.
func (p *Partition) Empty() bool {
	return p.Start == 0 && !p.folded && p.Committed.Offset == oona.NoOffset
}

// Open returns the history of a topic, from the commits of a group unless it is empty.
// The log is not read yet: see ReadOn.
func Open(ctx context.Context, b bus.Bus, topic, group string) (_ *History, err error) {
	h := &History{Bus: b, Topic: topic, Group: group}
	var commits []bus.Commit
	if group != "" { // read the commits before the log, so that no commit is beyond its end
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
		h.Partitions = append(h.Partitions, p)
	}
	return h, nil
}

// begin returns the history of a partition before its log is read.
func (h *History) begin(ctx context.Context, a bus.Assignment) (*Partition, error) {
	p := &Partition{Number: a.Partition, Start: a.LogStart, Next: a.LogStart, Committed: a.Committed, firstFrame: oona.NoOffset}
	catalogues := windows.Always(func(name string) oona.Metric { return oona.Metric{Name: name} }) // no frames are folded
	defaults := windows.DefaultConfig()
	past, err := aggregate.PastOf(ctx, a, nil)
	if err == nil {
		switch {
		case past.Lost != nil:
			p.Unknown = &lostError{h.lost(a, past), past.Lost}
			p.Engine, err = windows.Restart(defaults, catalogues, past.Commit, p.Start, a.LogEnd)
		case past.Committed:
			p.Engine, err = windows.Resume(defaults, catalogues, past.Commit)
		default:
			p.Engine, err = windows.New(defaults, catalogues)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the commit of group %s: %w; give the aggregators' --group, or --group= to use only the log", h.Group, err)
	}
	p.assignment, p.incarnation, p.timelines = a, p.Engine.Incarnation(), p.Engine.Stats().Timelines
	if past.Committed {
		p.InReach = p.Engine.Configurations()
	}
	return p, nil
}

// lost returns a text for operators that says which part of a partition's history is lost.
func (h *History) lost(a bus.Assignment, past aggregate.Past) string {
	switch {
	case errors.Is(past.Lost, aggregate.ErrAhead):
		return fmt.Sprintf("group %s had read up to offset %d, but the log ends at %d: it has lost records, or the topic was made again", h.Group, past.Reached.ProcessedTo, a.LogEnd)
	case errors.Is(past.Lost, aggregate.ErrOvertaken):
		return fmt.Sprintf("group %s has committed offset %d, but the log begins at %d: configurations in between are lost", h.Group, a.Committed.Offset, a.LogStart)
	}
	return "the beginning of the log has been deleted, and " + h.noCommit()
}

// noCommit returns a text that says why the partition has no commit.
func (h *History) noCommit() string {
	if h.Group == "" {
		return "no --group was given"
	}
	return fmt.Sprintf("group %s has no commit", h.Group)
}

// readTogether is the number of partitions that are read at the same time.
const readTogether = 4

// ReadUncommitted reads the logs if a partition has no commit. Otherwise the logs are not needed: the
// commits have the configurations that were in effect when they were made.
func (h *History) ReadUncommitted(ctx context.Context) error {
	for _, p := range h.Partitions {
		if p.Committed.Offset == oona.NoOffset {
			return h.ReadOn(ctx)
		}
	}
	return nil
}

// ReadOn reads the logs up to their present ends. It may be called again, to read newer records.
func (h *History) ReadOn(ctx context.Context) error {
	extents, err := h.Bus.Extents(ctx, h.Topic)
	if err != nil {
		return err
	}
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(readTogether)
	for _, p := range h.Partitions {
		end := extents[h.Topic][p.Number].End
		reading.Go(func() error {
			err := h.Bus.Read(ctx, h.Topic, bus.Range{Partition: p.Number, From: p.Next, End: end}, func(msg *message.Message) error { return h.fold(p, msg) })
			p.Next = max(p.Next, end) // there may be no records at the last offsets
			return err
		})
	}
	if err := reading.Wait(); err != nil {
		return fmt.Errorf("read the configurations: %w", err)
	}
	return nil
}

// fold folds a record into the history of its partition.
func (h *History) fold(p *Partition, msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	first := p.Empty()
	p.fold(at, msg)
	if first && p.folded && p.Unknown == nil && !p.configuredAt(at.Offset) {
		p.Unknown = fmt.Errorf("%w, but %s that has them", ErrNoConfiguration, h.noCommit())
	}
	return nil
}

// configuredAt reports whether the last record that was found is a configuration at offset that is in
// effect.
func (p *Partition) configuredAt(offset int64) bool {
	if len(p.Found) == 0 {
		return false
	}
	last := p.Found[len(p.Found)-1]
	return last.Offset == offset && last.Incarnation == nil && last.Holds
}

func (p *Partition) fold(at bus.Position, msg *message.Message) {
	record := windows.Record{Offset: at.Offset, AppendedAt: at.Appended}
	found := Found{Offset: at.Offset, AppendedAt: at.Appended}
	kind := msg.Metadata.Get(oona.HeaderRecord)
	var err error
	switch {
	case kind == oona.IncarnationRecord:
		found.Incarnation, err = decodeIncarnation(msg.Payload)
		record.Incarnation = found.Incarnation
	case oona.IsConfiguration(kind):
		if found.Configuration, err = decodeConfiguration(kind, msg.Payload); err == nil {
			record.Configuration = &found.Configuration
		}
	}
	outcome := p.Engine.Fold(record, nil)
	past := outcome.Verdict == windows.Replayed || outcome.Reason == windows.ReasonProcessed // the commit includes the record
	if oona.IsConfiguration(kind) {
		found.Holds = outcome.Reason == windows.ReasonConfigured || outcome.Reason == windows.ReasonBegun
		found.Says = outcome.Detail
		switch {
		case errors.Is(err, ErrLaterVersion):
			found.Says = err.Error()
			if !past {
				p.Unknown = fmt.Errorf("offset %d: %w", at.Offset, err)
			}
		case err != nil:
			found.Says = "a dead letter: " + err.Error()
		case past && found.Incarnation != nil:
			found.Holds, found.Says = p.settledIncarnation(found.Incarnation.Number)
		case past:
			found.Holds, found.Says = p.settled(found.Configuration)
		}
		p.Found = append(p.Found, found)
	}
	p.folded = p.folded || record.Incarnation == nil
	if kind == "" && p.firstFrame == oona.NoOffset {
		p.firstFrame = at.Offset
	}
	p.appendedAt = max(p.appendedAt, at.Appended)
	p.Next = at.Offset + 1
}

// decodeConfiguration decodes a configuration record. The error wraps ErrLaterVersion if
// aggregators of this version stop at the record. Otherwise, an error means that they
// make it a dead letter.
func decodeConfiguration(kind string, payload []byte) (windows.Configuration, error) {
	c, err := aggregate.DecodeConfiguration(kind, payload)
	if aggregate.OfLaterVersion(err) {
		err = fmt.Errorf("%w: %w", ErrLaterVersion, err)
	}
	return c, err
}

// decodeIncarnation decodes the start of an incarnation, with the errors of
// decodeConfiguration.
func decodeIncarnation(payload []byte) (*oona.IncarnationStart, error) {
	start, err := aggregate.DecodeIncarnation(payload)
	if aggregate.OfLaterVersion(err) {
		err = fmt.Errorf("%w: %w", ErrLaterVersion, err)
	}
	if err != nil {
		return nil, err
	}
	return &start, nil
}

// settledIncarnation reports whether an incarnation that began before the commit is in effect.
func (p *Partition) settledIncarnation(number oona.Incarnation) (holds bool, says string) {
	switch {
	case number == p.incarnation:
		return true, fmt.Sprintf("incarnation %d of the log begins", number)
	case number < p.incarnation:
		return false, fmt.Sprintf("incarnation %d is over, or had no effect", number)
	}
	return false, fmt.Sprintf("incarnation %d has no effect: the group's later commit does not have it", number)
}

// settled reports whether a configuration that was written before the commit is in effect.
func (p *Partition) settled(c windows.Configuration) (holds bool, says string) {
	for _, r := range p.InReach {
		if r.Config == c.Config {
			return true, Standing(r)
		}
	}
	if c.Config.Generation < p.InReach[0].Config.Generation {
		return false, fmt.Sprintf("generation %d is over, or had no effect", c.Config.Generation)
	}
	return false, fmt.Sprintf("generation %d has no effect: the group's later commit does not have it", c.Config.Generation)
}

// Standing returns a text that says since when a configuration of a commit is in effect.
func Standing(c windows.Configuration) string {
	from := "the beginning of the log"
	if c.From != 0 {
		from = c.From.Time().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("generation %d holds from %s", c.Config.Generation, from)
}
