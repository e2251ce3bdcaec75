package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Aggregation folds a log of seed metrics again.
type Aggregation struct {
	Log    Log
	Topics oona.Topics
	Folder *aggregate.Folder
	// Commits has the commits of the aggregator's group, by partition. Folding can begin from them
	// if the log has lost its beginning. May be nil.
	Commits []bus.Commit
	// Beginnings returns what is known about a partition whose past is lost. If it is nil, such a
	// partition is refused.
	Beginnings Beginnings
	// Compare has the rollup topics with which the rollups are compared. If it is nil, they are not
	// compared.
	Compare Log
	// Emit is called with each message that the engine emits, in the order of the partition. May be
	// nil.
	Emit func(topic string, partition int32, msg *message.Message) error
}

// Rollups describes the rollups that were emitted while a range of a partition was folded.
type Rollups struct {
	Partition int32
	// From and End are the range of the triggers' offsets. Windows that a record before From
	// has closed do not count.
	From, End  int64
	Comparison Comparison
	// Since is nil if all windows of the range can be computed.
	Since *Since

	counts [2]int
}

// Count returns the number of rollups of a group.
func (r *Rollups) Count(g oona.Group) int { return r.counts[g] }

// Partitions folds ranges of several partitions, as many at the same time as there are
// processors. If Emit is set, it folds them one after another, in their order. held has the
// extents of all partitions of the topic. The result has no Rollups for empty ranges.
func (a *Aggregation) Partitions(ctx context.Context, ranges []bus.Range, held []bus.Extent) ([]*Rollups, error) {
	ranges = slices.DeleteFunc(slices.Clone(ranges), func(r bus.Range) bool { return r.From >= r.End })
	all := make([]*Rollups, len(ranges))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	if a.Emit != nil {
		group.SetLimit(1)
	}
	for i, r := range ranges {
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil { // another partition has failed
				return err
			}
			all[i], err = a.Partition(ctx, r, int32(len(held)), held[r.Partition])
			return err
		})
	}
	return all, group.Wait()
}

// Partition folds a range of a partition. Several partitions may be folded at the same time, and
// then Emit is called concurrently. Without Beginnings, the error wraps ErrPastUnknown if the state of
// the engine at the beginning of the range is not known.
func (a *Aggregation) Partition(ctx context.Context, r bus.Range, partitions int32, held bus.Extent) (*Rollups, error) {
	p := past{topic: a.Topics.SeedMetrics, partition: r.Partition, partitions: partitions, held: held}
	from := max(r.From, held.Start)
	if d, ok := a.Log.(Kept); ok {
		from = max(from, d.Asked(p.topic, r.Partition))
	}
	machine, err := a.machine(ctx, p, from)
	if err != nil {
		return nil, err
	}
	f := &foldingAgain{Aggregation: a, machine: machine, from: from}
	f.out = &Rollups{Partition: r.Partition, From: max(from, machine.ProcessedTo()), End: r.End}
	if machine.lost != nil {
		f.out.From = from
		f.out.Since = &Since{Partition: r.Partition, Why: fmt.Sprintf("the log is held from offset %d on, and what was folded before is not known", p.held.Start)}
	}
	return f.out, f.run(ctx, p)
}

// machine returns a machine for a range that begins at an offset.
func (a *Aggregation) machine(ctx context.Context, p past, from int64) (*folding, error) {
	var err error
	if p.commits, err = commitsOf(a.Log, p, a.Commits, from); err != nil {
		return nil, err
	}
	machine, err := foldTo(ctx, a.Log, a.Folder, p, from)
	if !errors.Is(err, ErrPastUnknown) || a.Beginnings == nil {
		return machine, err
	}
	known, err := a.Beginnings(ctx, p.partition)
	if err != nil {
		return nil, err
	}
	return restart(a.Folder, p, known)
}

// foldingAgain is the folding of a range.
type foldingAgain struct {
	*Aggregation
	machine *folding
	from    int64
	out     *Rollups
	compare [2]*comparing // by group; nil if the rollups are not compared
}

func (f *foldingAgain) run(ctx context.Context, p past) (err error) {
	if f.Compare != nil {
		defer func() {
			for _, c := range f.compare {
				if c != nil {
					c.stop()
				}
			}
		}()
		for _, group := range []oona.Group{oona.Health, oona.Performance} {
			c, err := f.comparing(ctx, group)
			if err != nil {
				return err
			}
			f.compare[group] = c
		}
	}
	err = ReadAhead(ctx, f.Log, p.topic, bus.Range{Partition: p.partition, From: f.machine.next, End: f.out.End}, f.take)
	if s := f.out.Since; s != nil {
		s.Window, s.Known = f.machine.lost.answersFrom()
	}
	for _, c := range f.compare {
		if err == nil && c != nil {
			err = c.end()
		}
	}
	return err
}

// take folds a record.
func (f *foldingAgain) take(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	if s := f.out.Since; s != nil && s.Asked == 0 && at.Offset >= f.from {
		s.Asked = at.Appended
	}
	var failed error
	err = f.machine.fold(msg, at, func(topic string, msg *message.Message) {
		failed = errors.Join(failed, f.emitted(topic, msg, at))
	})
	return errors.Join(err, failed)
}

// emitted counts, compares and passes on a message that the engine has emitted.
func (f *foldingAgain) emitted(topic string, msg *message.Message, at bus.Position) error {
	if at.Offset < f.out.From {
		return nil
	}
	if f.Topics.Schema(topic) == oona.RollupSchema {
		var rollup oona.Rollup
		if _, err := avro.DecodeRollup(msg.Payload, &rollup); err != nil {
			return fmt.Errorf("decode an emitted rollup: %w", err)
		}
		if f.machine.lost != nil {
			if from, _ := f.machine.lost.answersFrom(); rollup.Start < from {
				return nil
			}
		}
		f.out.counts[rollup.Group]++
		if c := f.compare[rollup.Group]; c != nil {
			if err := c.emitted(&rollup, msg.Payload); err != nil {
				return err
			}
		}
	}
	if f.Emit == nil {
		return nil
	}
	return f.Emit(topic, f.out.Partition, msg)
}
