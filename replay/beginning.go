package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// Beginning is what is known about a partition whose log has lost its beginning. It comes from
// another source, because the log no longer has it.
type Beginning struct {
	Incarnation oona.Incarnation // 0 if it is not known
	// Windows is the configuration that was last written to the partition.
	Windows windows.Configuration
}

// Beginnings returns what is known about a partition that has lost its beginning.
type Beginnings func(ctx context.Context, partition int32) (Beginning, error)

// BeginningsIn returns what an archive says about its partitions. settings are used if the archive
// does not say which windows the log had.
func BeginningsIn(d *archive.Directory, topic string, settings windows.Config) Beginnings {
	return func(_ context.Context, partition int32) (Beginning, error) {
		b := Beginning{Windows: windows.Configuration{Config: settings}}
		h, found, err := d.Header(topic, partition)
		if err != nil || !found {
			return b, err
		}
		b.Incarnation = h.Incarnation
		if h.Windows == nil {
			return b, nil
		}
		record, err := avro.DecodeConfiguration(h.Windows)
		if err == nil {
			b.Windows, err = windows.ConfigurationOf(&record)
		}
		if err != nil {
			return b, fmt.Errorf("the windows of %s/%d in the archive: %w", topic, partition, err)
		}
		return b, nil
	}
}

// text returns the windows for the header of an archive's file, or nil if they are not from
// a record of the log.
func (b Beginning) text() []byte {
	if b.Windows.Config.Generation == 0 {
		return nil
	}
	return avro.AppendConfiguration(nil, b.Windows.Record())
}

// lost is a machine for a log that has lost its beginning. It begins with the incarnation
// and the windows that are known.
type lost struct {
	partition.Machine
	known Beginning
	begun bool
}

// restart returns a machine that folds a partition from where its log begins. The machine emits the
// windows that need none of the lost records.
func restart(folder *aggregate.Folder, p past, known Beginning) (*folding, error) {
	a := bus.Assignment{Topic: p.topic, Partition: p.partition, Partitions: p.partitions, LogStart: p.held.Start, LogEnd: p.held.End}
	// Fold passes a record with the incarnation to the engine before the first record, so the
	// machine begins one offset earlier.
	m, err := folder.Restart(a, known.Windows.Config, p.held.Start-1)
	if err != nil {
		return nil, err
	}
	l := &lost{Machine: m, known: known}
	return &folding{Machine: l, incarnation: known.Incarnation, next: p.held.Start, lost: l}, nil
}

// Fold folds a record. Before the first record, it folds one with the known incarnation.
func (l *lost) Fold(msg *message.Message, at bus.Position, emit partition.Emit) (bool, error) {
	if !l.begun && l.known.Incarnation != 0 {
		start := oona.IncarnationStart{Number: l.known.Incarnation, PreviousEnd: bus.NoOffset, WrittenAt: at.Appended}
		first := message.NewMessage("", avro.AppendIncarnation(nil, start))
		first.Metadata.Set(oona.HeaderRecord, oona.IncarnationRecord)
		before := at
		before.Offset = l.ProcessedTo()
		if _, err := l.Machine.Fold(first, before, discard); err != nil {
			return false, err
		}
	}
	l.begun = true
	return l.Machine.Fold(msg, at, emit)
}

// answersFrom returns the earliest start of a window that can be computed, or false if none can yet.
// Windows before the last configuration cannot, because another configuration may have held for them.
func (l *lost) answersFrom() (oona.Micros, bool) {
	from, known := l.Machine.(interface{ EmitsFrom() (oona.Micros, bool) }).EmitsFrom()
	return max(from, l.known.Windows.From), known
}

// Since says from which window on the windows of a partition can be computed.
type Since struct {
	Partition int32       `json:"partition"`
	Window    oona.Micros `json:"-"` // start of the first window that can be computed
	Known     bool        `json:"-"` // false if no window can be computed
	// Asked is the append time of the first record of the range.
	Asked oona.Micros `json:"-"`
	Why   string      `json:"why"` // why earlier windows cannot be computed
}

// Covers reports whether all windows that start after the beginning of the range can be computed.
func (s *Since) Covers() bool { return s.Known && s.Asked >= s.Window }

func (s *Since) String() string {
	if !s.Known {
		return fmt.Sprintf("partition %d: no window can be computed: %s; the log must go on for max-delay, max-skew and the idle horizon", s.Partition, s.Why)
	}
	return fmt.Sprintf("partition %d: windows can be computed from %s on: %s", s.Partition, s.Window.Time().Format(time.RFC3339Nano), s.Why)
}

// commitsOf returns the commits from which the folding of a partition can begin: those of
// the group, or the snapshots of an archive.
func commitsOf(log Log, p past, group []bus.Commit, to int64) ([]bus.Commit, error) {
	d, ok := log.(Kept)
	if !ok {
		if int(p.partition) < len(group) {
			return group[p.partition : p.partition+1], nil
		}
		return nil, nil
	}
	s, err := d.Snapshot(p.topic, p.partition, to)
	if err != nil || s == nil {
		return nil, err
	}
	return []bus.Commit{bus.Commit(*s)}, nil
}
