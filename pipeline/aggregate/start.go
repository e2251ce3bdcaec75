package aggregate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/windows"
)

// Reasons why a partition is not opened. The state of its open windows is not known, and a
// guess could give a rollup that differs from one that was already emitted. So the stage ends, and
// the error says what to do.
var (
	// ErrNoCommit: the log does not begin at 0 and the group has no commit.
	ErrNoCommit = errors.New("the group has no commit, and the beginning of the log was deleted")
	// ErrOvertaken: retention has deleted records of windows that were open.
	ErrOvertaken = errors.New("records that the commit still needs were deleted from the log")
	// ErrAhead: the log has lost records that were read.
	ErrAhead = errors.New("the log has lost records that were read when the commit was made")
	// ErrMadeAgain: the rollups were made from another log, and readers would drop the
	// rollups of this one.
	ErrMadeAgain = errors.New("the rollups were made from another log, and this log has no new incarnation")
	// ErrPartitions: keys have moved to other partitions.
	ErrPartitions = errors.New("the topic's number of partitions has changed")
	// ErrSettings: the worker was started with --from-here and with settings that the
	// log cannot have.
	ErrSettings = errors.New("this worker's settings do not fit the log of the partition")
	// ErrCommitText: the commit was not written by this aggregator.
	ErrCommitText = errors.New("the commit cannot be read")
)

// Log looks into the seed-metrics topic and the rollup topics, and begins incarnations
// of the seed-metrics topic.
type Log interface {
	// Record returns the append time of the record at an offset, or false if the
	// partition holds no record there.
	Record(ctx context.Context, partition int32, offset int64) (appendedAt oona.Micros, found bool, err error)
	// FirstIncarnation returns the number of the incarnation that the record at
	// offset 0 begins, or 0 if there is no such record.
	FirstIncarnation(ctx context.Context, partition int32) (oona.Incarnation, error)
	// LastIncarnation returns the greatest number that was written for the
	// partition, wherever in the log its record is, or 0 if none is known.
	LastIncarnation(ctx context.Context, partition int32) (oona.Incarnation, error)
	// LastRollups returns the last rollup of the partition in each of the rollup
	// topics that has one.
	LastRollups(ctx context.Context, partition int32) ([]oona.Rollup, error)
	// BeginIncarnation appends an incarnation record. Its number is greater than
	// known and than every number that was written for the partition. It returns an
	// offset after the record. previousEnd is the offset up to which the log had been read.
	BeginIncarnation(ctx context.Context, partition int32, known oona.Incarnation, previousEnd int64, reason string) (end int64, err error)
	// LastWindows returns the configuration that was last written to the partition,
	// even if the log has lost it, or false if none is known.
	LastWindows(ctx context.Context, partition int32) (oona.WindowConfiguration, bool, error)
}

// Past describes the past of a partition, according to the group's commit and the log.
type Past struct {
	Committed bool            // whether there is a commit
	Commit    windows.Commit  // the engine's commit
	Reached   windows.Reached // how far the log had been read at the commit
	// Lost is the reason why the partition cannot be folded from the commit or, without a
	// commit, from the beginning of the log. It wraps ErrNoCommit, ErrOvertaken, ErrAhead
	// or ErrMadeAgain. It is nil if the partition can be folded.
	Lost error
}

// PastOf decides how a partition is resumed. It is the only place that decides this:
// for the first offset of an assignment, for its engine, and for what `oona windows`
// shows. If log is nil, it decides by the assignment alone. If a.Partitions is 0, the
// number of partitions is not compared. The error wraps ErrCommitText, ErrPartitions
// or windows.ErrCommit, or the error of a method of log.
func PastOf(ctx context.Context, a bus.Assignment, log Log) (Past, error) {
	if a.Committed.Offset == bus.NoOffset {
		lost, err := withoutCommit(ctx, a, log)
		return Past{Lost: lost}, err
	}
	partitions, commit, err := ParseCommit(a.Committed)
	if err != nil {
		return Past{}, fmt.Errorf("%s/%d at offset %d: %w", a.Topic, a.Partition, a.Committed.Offset, err)
	}
	if a.Partitions != 0 && partitions != a.Partitions {
		return Past{}, fmt.Errorf("%w: %s had %d when this was committed and has %d; layers are now in other partitions than their open windows. Make new topics with that number of partitions, under another --prefix",
			ErrPartitions, a.Topic, partitions, a.Partitions)
	}
	past := Past{Committed: true, Commit: commit}
	if past.Reached, err = commit.Reached(); err != nil {
		return Past{}, fmt.Errorf("%s/%d: %w", a.Topic, a.Partition, err)
	}
	past.Lost, err = past.compare(ctx, a, log)
	return past, err
}

// withoutCommit decides for a partition without a commit of the group.
func withoutCommit(ctx context.Context, a bus.Assignment, log Log) (lost, err error) {
	if a.LogStart > 0 {
		return fmt.Errorf("%w: %s/%d begins at offset %d. Was the group renamed, or have its offsets expired? Restore its commits (oona group import), or start the aggregator with --from-here to continue with what the log still holds",
			ErrNoCommit, a.Topic, a.Partition, a.LogStart), nil
	}
	if log == nil {
		return nil, nil
	}
	last, err := log.LastRollups(ctx, a.Partition)
	if err != nil || len(last) == 0 {
		return nil, err
	}
	var trigger oona.Trigger
	for i := range last {
		if same, err := isOf(ctx, &last[i], a, log); err != nil || same {
			return nil, err
		}
		if last[i].Trigger.After(trigger) {
			trigger = last[i].Trigger
		}
	}
	first, err := log.FirstIncarnation(ctx, a.Partition)
	if err != nil || first > 0 && first >= trigger.Incarnation {
		return nil, err
	}
	begun, err := log.LastIncarnation(ctx, a.Partition)
	if err != nil || begun > trigger.Incarnation {
		return nil, err
	}
	return fmt.Errorf("%w: the group has no commit of %s/%d, and rollups of it were emitted up to offset %d of incarnation %d (the topic was made again, or an older copy of it was restored). Readers would drop the rollups that are emitted now. Begin another incarnation of the log with: oona topics apply",
		ErrMadeAgain, a.Topic, a.Partition, trigger.Offset, trigger.Incarnation), nil
}

// isOf reports whether a rollup was made from this log, that is, whether the log has the record
// that triggered it. A rollup says when its trigger was appended, with the accuracy of a window. If
// the topic was deleted and created again, the record at that offset was appended later.
func isOf(ctx context.Context, r *oona.Rollup, a bus.Assignment, log Log) (bool, error) {
	if r.Group != oona.Performance {
		return false, nil
	}
	appendedAt, found, err := log.Record(ctx, a.Partition, r.Trigger.Offset)
	latest := appendedAt - r.Rates.Delay // time of the latest observation in the window
	return found && latest >= r.Start && latest < r.End, err
}

// compare returns an error if the log has lost records that the commit needs.
func (p *Past) compare(ctx context.Context, a bus.Assignment, log Log) (lost, err error) {
	if p.Reached.ProcessedTo > a.LogEnd {
		return fmt.Errorf("%w: %s/%d ends at offset %d, and had been read up to %d (an unclean election, a restored backup, a topic that was made again). New records at these offsets would be taken for records that were read. Start the aggregator with --from-here to continue with what the log holds, or use new topics under another --prefix",
			ErrAhead, a.Topic, a.Partition, a.LogEnd, p.Reached.ProcessedTo), nil
	}
	last := p.Reached.ProcessedTo - 1
	if p.Reached.Known && last >= a.LogStart && log != nil {
		appendedAt, found, err := log.Record(ctx, a.Partition, last)
		if err != nil {
			return nil, err
		}
		if !found || appendedAt != p.Reached.AppendedAt {
			return fmt.Errorf("%w: the record of %s/%d at offset %d is not the one that was read; the log lost its end and has grown since (an unclean election, a restored backup, a topic that was made again). Start the aggregator with --from-here to continue with what the log holds, or use new topics under another --prefix",
				ErrAhead, a.Topic, a.Partition, last), nil
		}
	}
	if a.Committed.Offset < a.LogStart {
		return fmt.Errorf("%w: %s/%d begins at offset %d and was committed at %d; windows that were open have lost records. Lengthen the retention, and start the aggregator with --from-here to continue with what the log still holds",
			ErrOvertaken, a.Topic, a.Partition, a.LogStart, a.Committed.Offset), nil
	}
	return nil, nil
}

// Open decides how a partition is resumed, and makes its machine.
func (f *Folder) Open(ctx context.Context, a bus.Assignment) (partition.Opened, error) {
	past, err := PastOf(ctx, a, f.cfg.Log)
	if err != nil {
		return partition.Opened{}, err
	}
	if !a.Settled && mayBeShort(a, past.Lost) {
		return partition.Opened{}, fmt.Errorf("%w: %w", bus.ErrShort, past.Lost)
	}
	engine, err := f.engine(ctx, a, past)
	if err != nil {
		return partition.Opened{}, err
	}
	m := &machine{folder: f, about: a, engine: engine, logger: f.logger.With("partition", a.Partition)}
	m.traces = f.newTraces(a.Partition, m.logger)
	m.noteLoss()
	m.compareSettings("the partition keeps the windows of its commit, which differ from this worker's settings")
	opened := partition.Opened{Machine: m, From: a.LogStart}
	if past.Lost == nil && past.Committed {
		opened.From = a.Committed.Offset
	}
	// The first commit after a loss has the offset at which the log ended.
	opened.CommitNow = past.Lost != nil
	return opened, nil
}

// Restart returns a machine for a log that begins at an offset and whose past is not
// known. As with FromHere, it emits only windows that need no record of the past. But it writes
// nothing to the log, so that programs that only read can use it.
func (f *Folder) Restart(a bus.Assignment, settings windows.Config, begin int64) (partition.Machine, error) {
	engine, err := windows.Restart(settings, f.catalogues, windows.Commit{}, begin, begin)
	if err != nil {
		return nil, fmt.Errorf("%s/%d: start from offset %d: %w", a.Topic, a.Partition, begin, err)
	}
	return &machine{folder: f, about: a, engine: engine, logger: f.logger.With("partition", a.Partition), withheld: true}, nil
}

// mayBeShort reports whether records may only seem to be lost for a moment: a leader may
// not know the end of the log yet, or `oona topics apply` has created the topic and has not written
// its first record yet.
func mayBeShort(a bus.Assignment, lost error) bool {
	return errors.Is(lost, ErrAhead) || errors.Is(lost, ErrMadeAgain) && a.LogEnd == 0
}

// final has the errors that another attempt would return again. After any other error, the
// assignment is tried again.
var final = []error{ErrNoCommit, ErrOvertaken, ErrAhead, ErrMadeAgain, ErrPartitions, ErrSettings, ErrCommitText, windows.ErrCommit, windows.ErrReducer, windows.ErrWindowKind, windows.ErrCatalogue}

func isFinal(err error) bool {
	return slices.ContainsFunc(final, func(f error) bool { return errors.Is(err, f) })
}

// engine returns the engine of an assignment.
func (f *Folder) engine(ctx context.Context, a bus.Assignment, past Past) (engine *windows.Engine, err error) {
	if past.Lost != nil && !f.cfg.FromHere {
		return nil, past.Lost
	}
	switch {
	case past.Lost != nil:
		engine, err = f.fromHere(ctx, a, past)
	case past.Committed:
		engine, err = windows.Resume(f.cfg.Windows, f.catalogues, past.Commit)
	default:
		engine, err = windows.New(f.cfg.Windows, f.catalogues)
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%d, committed at offset %d: %w", a.Topic, a.Partition, a.Committed.Offset, err)
	}
	return engine, nil
}

// fromHere returns an engine for the records that the log still has. It begins a new incarnation
// of the log. The engine emits nothing before it has read the record of this incarnation. So
// readers accept the new rollups, whatever their offsets are.
func (f *Folder) fromHere(ctx context.Context, a bus.Assignment, past Past) (*windows.Engine, error) {
	settings, err := f.lastWindows(ctx, a, past)
	if err != nil {
		return nil, err
	}
	end := a.LogEnd
	if f.cfg.Log != nil {
		previous := int64(bus.NoOffset)
		if past.Committed {
			previous = past.Reached.ProcessedTo
		}
		after, err := f.cfg.Log.BeginIncarnation(ctx, a.Partition, past.Reached.Incarnation, previous, briefly(past.Lost))
		if err != nil {
			return nil, fmt.Errorf("begin an incarnation: %w", err)
		}
		end = max(end, after)
	}
	engine, err := windows.Restart(settings, f.catalogues, past.Commit, a.LogStart, end)
	if err != nil {
		return nil, fmt.Errorf("start from here at offset %d: %w", a.LogStart, err)
	}
	f.logger.Warn("the partition starts with what its log holds: its past is lost", "partition", a.Partition, "log_start", a.LogStart, "log_end", end,
		"committed", a.Committed.Offset, "windows", fmt.Sprintf("%+v", engine.Config()), "err", past.Lost)
	return engine, nil
}

// briefly returns why a partition starts over, without the advice to the operator.
func briefly(lost error) string {
	for _, why := range final {
		if errors.Is(lost, why) {
			return why.Error()
		}
	}
	return lost.Error()
}

// lastWindows returns the windows of a partition that starts over. Without a commit, it returns the
// configuration that was last written to the partition, if it has already taken effect. Otherwise it
// returns the worker's settings.
func (f *Folder) lastWindows(ctx context.Context, a bus.Assignment, past Past) (windows.Config, error) {
	if past.Committed || f.cfg.Log == nil {
		return f.cfg.Windows, nil
	}
	last, found, err := f.cfg.Log.LastWindows(ctx, a.Partition)
	if err != nil {
		return windows.Config{}, fmt.Errorf("find the configuration that was last written: %w", err)
	}
	if !found || last.From > oona.MicrosOf(time.Now()) {
		return f.cfg.Windows, nil
	}
	configuration, err := windows.ConfigurationOf(&last)
	if err != nil {
		return windows.Config{}, fmt.Errorf("the configuration that was last written: %w", err)
	}
	return configuration.Config, nil
}
