// Package replay reads ranges of the logs of Oona's topics again: from the bus, or from an
// archive that an earlier replay wrote.
//
//	Log (bus or archive) ──▶ Archiver    archive files, with snapshots of the window engine
//	                    └──▶ Aggregation the window engine again: rollups, byte for byte
//
// All results depend only on the log. A replay has no consumer group, commits nothing, and
// changes no topic that it reads.
package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/windows"
)

// Log is the source of a replay: the topics of a bus, or an archive of them.
type Log interface {
	// Extents returns the extent of every partition of the topics, by number.
	Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error)
	// Read calls take with the records of a range, in order: see bus.Admin.
	Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error
}

// Kept is a Log that an earlier replay wrote. It knows more about its records than a bus does.
type Kept interface {
	Log
	// Asked returns the first offset of a partition that the earlier replay was asked for. It may
	// have earlier records, too, because the snapshots need them.
	Asked(topic string, partition int32) int64
	// Snapshot returns the latest state of the window engine as of an offset or before it,
	// or nil.
	Snapshot(topic string, partition int32, to int64) (*archive.Snapshot, error)
	// OffsetAt returns the offset of the first record that was appended at a time or after
	// it, or the end.
	OffsetAt(ctx context.Context, topic string, partition int32, at oona.Micros) (int64, error)
}

// ErrPastUnknown means that the state of the window engine at an offset cannot be
// computed: the log no longer has the records that it depends on, and no commit is early enough.
var ErrPastUnknown = errors.New("what was folded before is not known")

// folding is a machine that has folded a partition up to some offset.
type folding struct {
	partition.Machine
	incarnation oona.Incarnation // incarnation of the log at ProcessedTo
	next        int64            // the offset after the last folded record
	lost        *lost            // the machine, if the past of the log is not known; otherwise nil
}

// fold folds a record.
func (f *folding) fold(msg *message.Message, at bus.Position, emit partition.Emit) error {
	if begins, found := incarnationOf(msg); found {
		f.incarnation = max(f.incarnation, begins)
	}
	if _, err := f.Fold(msg, at, emit); err != nil {
		return fmt.Errorf("fold offset %d of %s/%d: %w", at.Offset, at.Topic, at.Partition, err)
	}
	f.next = at.Offset + 1
	return nil
}

// incarnationOf returns the incarnation that begins with a record of the seed-metrics topic, or false
// if the record begins none.
func incarnationOf(msg *message.Message) (oona.Incarnation, bool) {
	if msg.Metadata.Get(oona.HeaderRecord) != oona.IncarnationRecord {
		return 0, false
	}
	start, err := aggregate.DecodeIncarnation(msg.Payload)
	return start.Number, err == nil
}

func discard(string, *message.Message) {}

// past has what is needed to find the state of the engine at an offset of a partition.
type past struct {
	topic      string
	partition  int32
	partitions int32 // number of partitions of the topic
	held       bus.Extent
	commits    []bus.Commit // commits of the aggregator for different offsets
}

// foldTo returns a machine that has folded the partition up to an offset, and emitted
// nothing. It starts from the latest commit that is not after the offset, or from the
// beginning of the log. The error wraps ErrPastUnknown if it can do neither.
func foldTo(ctx context.Context, log Log, folder *aggregate.Folder, p past, to int64) (*folding, error) {
	from, reached, err := p.latest(to)
	if err != nil {
		return nil, err
	}
	opened, err := folder.Open(ctx, bus.Assignment{
		Topic: p.topic, Partition: p.partition, Partitions: p.partitions, LogStart: p.held.Start, LogEnd: p.held.End, Settled: true, Committed: from,
	})
	if err != nil {
		return nil, err
	}
	f := &folding{Machine: opened.Machine, incarnation: reached.Incarnation, next: opened.From}
	err = ReadAhead(ctx, log, p.topic, bus.Range{Partition: p.partition, From: opened.From, End: max(to, opened.From)}, func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		return f.fold(msg, at, discard)
	})
	return f, err
}

// latest returns the commit to start from, and how far it has processed the log. If there is none and
// the log begins at offset 0, the Offset of the commit is bus.NoOffset.
func (p past) latest(to int64) (best bus.Commit, reached windows.Reached, err error) {
	best.Offset = bus.NoOffset
	for _, c := range p.commits {
		if c.Offset == bus.NoOffset || c.Offset < p.held.Start {
			continue
		}
		_, engine, err := aggregate.ParseCommit(c)
		if err != nil {
			return best, reached, err
		}
		r, err := engine.Reached()
		if err != nil {
			return best, reached, err
		}
		if r.ProcessedTo <= to && (best.Offset == bus.NoOffset || r.ProcessedTo > reached.ProcessedTo) {
			best, reached = c, r
		}
	}
	if best.Offset == bus.NoOffset && p.held.Start > 0 {
		return best, reached, fmt.Errorf("%w: %s/%d begins at offset %d", ErrPastUnknown, p.topic, p.partition, p.held.Start)
	}
	return best, reached, nil
}
