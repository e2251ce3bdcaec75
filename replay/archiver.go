package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
)

// Archiver writes ranges of a log to an archive.
type Archiver struct {
	Log   Log
	Dir   string
	Codec string // one of archive.Codecs
	// FileBytes is the size at which a file ends and the next one begins.
	FileBytes int64
	// Folder folds the seed-metrics topic while it is archived, to make snapshots. If it is nil,
	// there are no snapshots.
	Folder *aggregate.Folder
	// Commits has the commits of the aggregator's group, by partition. Snapshots can be made from
	// them if the log has lost its beginning. May be nil.
	Commits []bus.Commit
	// Beginnings returns what is known about a partition for which no snapshot can be made. May be
	// nil.
	Beginnings Beginnings
	// Unknown is called with the reason if no snapshot can be made for a partition. May be nil.
	Unknown func(topic string, partition int32, why error)
	// Progress is called after records were written.
	Progress func(Progress)
}

// Progress says what an archiver has done since the last call.
type Progress struct {
	Records, Bytes   int64
	Frames, Readings int64 // of the seed-metrics topic
}

// Write archives the ranges of a topic, and returns when they are on disk. If the archive
// already has a part of them, Write continues where that part ends. If the topic is folded and a range
// begins within a partition, Write also archives the earlier records that the engine needs.
func (a *Archiver) Write(ctx context.Context, m *manifest.Manifest, topic string, folded bool, ranges []bus.Range) error {
	extents, err := a.Log.Extents(ctx, topic)
	if err != nil {
		return err
	}
	t := m.Topic(topic)
	if t == nil {
		m.Topics = append(m.Topics, manifest.Topic{Name: topic, Partitions: make([]manifest.Partition, len(extents[topic]))})
		t = m.Topic(topic)
	}
	if len(t.Partitions) != len(extents[topic]) {
		return fmt.Errorf("%w: %s has %d partitions in the archive %s, and %d now (the topic was made again, or partitions were added); use another directory", ErrOtherLog, topic, len(t.Partitions), a.Dir, len(extents[topic]))
	}
	for _, r := range ranges {
		job := &archiving{Archiver: a, manifest: m, topic: topic, partition: r.Partition, part: &t.Partitions[r.Partition], held: extents[topic][r.Partition], partitions: int32(len(t.Partitions))}
		job.frames, job.folds = folded, folded && a.Folder != nil
		if err := job.run(ctx, r); err != nil {
			return err
		}
	}
	return m.Write(a.Dir)
}

var (
	// ErrOtherLog means that an archive was made from another log than the one that is to be
	// archived: the topic was deleted and created again, or has lost its end, or it is another
	// cluster.
	ErrOtherLog = errors.New("the archive is of another log")
	// ErrRange means that an archive cannot be continued with a range.
	ErrRange = errors.New("the archive cannot be continued with this range")
)

// archiving is the work on one partition.
type archiving struct {
	*Archiver
	manifest   *manifest.Manifest
	topic      string
	partition  int32
	part       *manifest.Partition
	held       bus.Extent
	partitions int32
	frames     bool // whether the topic is the one that aggregators fold
	folds      bool // whether the archiver folds it

	machine  *folding // nil if nothing is folded
	windows  []byte   // windows for the headers of files, if machine is nil
	writer   *archive.Writer
	known    oona.Incarnation
	next     int64 // offset after the last record
	progress Progress
}

func (j *archiving) run(ctx context.Context, r bus.Range) error {
	r.From, r.End = max(r.From, j.held.Start), min(r.End, j.held.End)
	if d, ok := j.Log.(Kept); ok {
		r.From = max(r.From, d.Asked(j.topic, r.Partition))
	}
	if err := archive.Sweep(j.Dir, j.topic, r.Partition, j.part.Files); err != nil {
		return err
	}
	resumed := len(j.part.Files) > 0
	if resumed {
		if err := j.resume(ctx, &r); err != nil {
			return err
		}
	} else {
		j.part.Asked, j.part.From, j.part.End = r.From, r.From, r.From
	}
	if r.From >= r.End {
		return nil
	}
	if err := j.prepare(ctx, r); err != nil {
		return err
	}
	from := r.From
	snapshot := j.snapshot()
	if !resumed && snapshot != nil {
		from = min(from, snapshot.Offset)
		j.part.From, j.part.End = from, from
	}
	if err := j.begin(r.Partition, from, snapshot); err != nil {
		return err
	}
	j.next = from
	err := j.Log.Read(ctx, j.topic, bus.Range{Partition: r.Partition, From: from, End: r.End}, func(msg *message.Message) error { return j.take(ctx, msg) })
	if err == nil {
		err = j.whole(ctx, r.End)
	}
	if err != nil && j.writer != nil {
		err = errors.Join(err, j.writer.Abort())
	}
	if err != nil {
		return err
	}
	return j.finish(r.End)
}

// resume moves the beginning of a range to where the archive ends. It returns an error if
// the archive cannot be continued with this log.
func (j *archiving) resume(ctx context.Context, r *bus.Range) error {
	where := fmt.Sprintf("the archive %s has the offsets %d to %d of %s/%d", j.Dir, j.part.Asked, j.part.End-1, j.topic, r.Partition)
	if r.From > j.part.End {
		return fmt.Errorf("%w: %s, and a range from offset %d would leave a gap; use another directory, or an earlier --from", ErrRange, where, r.From)
	}
	if r.From < j.part.Asked {
		return fmt.Errorf("%w: %s, and a range from offset %d begins before them; use another directory, or a later --from", ErrRange, where, r.From)
	}
	if j.held.End < j.part.End {
		return fmt.Errorf("%w: %s, and the log ends at %d; use another directory", ErrOtherLog, where, j.held.End)
	}
	last := j.part.Files[len(j.part.Files)-1].Last
	if last.AppendTime != 0 && last.Offset >= j.held.Start {
		appended, err := appendTime(ctx, j.Log, j.topic, r.Partition, last.Offset)
		if err != nil {
			return err
		}
		if int64(appended) != last.AppendTime {
			return fmt.Errorf("%w: %s, and the record of the log at offset %d is not the one that was archived; use another directory", ErrOtherLog, where, last.Offset)
		}
	}
	r.From = j.part.End
	return nil
}

// appendTime returns the append time of the record at an offset, or 0 without a record.
func appendTime(ctx context.Context, log Log, topic string, partition int32, offset int64) (appended oona.Micros, err error) {
	_, appended, err = firstFrom(ctx, log, topic, bus.Range{Partition: partition, From: offset, End: offset + 1})
	return appended, err
}

// prepare folds the partition up to where the range begins.
func (j *archiving) prepare(ctx context.Context, r bus.Range) (err error) {
	if !j.frames {
		return nil
	}
	if j.folds {
		p := past{topic: j.topic, partition: r.Partition, partitions: j.partitions, held: j.held}
		if p.commits, err = j.commitsOf(p, r.From); err != nil {
			return err
		}
		machine, err := foldTo(ctx, j.Log, j.Folder, p, r.From)
		if err == nil {
			j.machine, j.known = machine, machine.incarnation
			return nil
		}
		if !errors.Is(err, ErrPastUnknown) {
			return err
		}
		if j.Unknown != nil {
			j.Unknown(j.topic, r.Partition, err)
		}
	}
	if j.Beginnings == nil || r.From == 0 {
		return nil
	}
	known, err := j.Beginnings(ctx, r.Partition)
	if err == nil {
		j.known, j.windows = known.Incarnation, known.text()
	}
	return err
}

// commitsOf returns the commits from which folding can begin, among them the last snapshot
// of an archive that is continued.
func (j *archiving) commitsOf(p past, from int64) ([]bus.Commit, error) {
	commits, err := commitsOf(j.Log, p, j.Commits, from)
	if err != nil || len(j.part.Files) == 0 {
		return commits, err
	}
	own := &archive.Directory{Manifest: j.manifest, Path: j.Dir}
	s, err := own.Snapshot(j.topic, p.partition, from)
	if err != nil || s == nil {
		return commits, err
	}
	return append(slices.Clip(commits), bus.Commit(*s)), nil
}

// snapshot returns the state of the engine, or nil if there is none. There is also none if the state
// is too large for a commit. Then the snapshot of an earlier file is used.
func (j *archiving) snapshot() *archive.Snapshot {
	if j.machine == nil {
		return nil
	}
	c, err := j.machine.Commit()
	if err != nil {
		return nil
	}
	return &archive.Snapshot{Offset: c.Offset, Metadata: c.Metadata}
}

func (j *archiving) begin(partition int32, first int64, s *archive.Snapshot) error {
	w, err := archive.Create(j.Dir, archive.Header{
		Topic: j.topic, Partition: partition, Partitions: j.partitions, First: first, Incarnation: j.known, Snapshot: s, Windows: j.windows,
	}, j.Codec)
	if err == nil {
		j.writer = w
	}
	return err
}

// take writes a record, and folds it unless the engine has already folded it.
func (j *archiving) take(ctx context.Context, msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	if err := j.whole(ctx, at.Offset); err != nil {
		return err
	}
	if j.writer.Size() >= j.FileBytes {
		if err := j.finish(at.Offset); err != nil {
			return err
		}
		if err := j.begin(at.Partition, at.Offset, j.snapshot()); err != nil {
			return err
		}
	}
	switch {
	case j.machine == nil:
		if begins, found := incarnationOf(msg); found && j.frames {
			j.known = max(j.known, begins)
		}
	case at.Offset >= j.machine.next:
		if err := j.machine.fold(msg, at, discard); err != nil {
			return err
		}
		j.known = j.machine.incarnation
	}
	at.Incarnation = max(j.known, at.Incarnation) // a position from an archive has an incarnation already
	if err := j.writer.Append(msg, at); err != nil {
		return err
	}
	j.progress.Records++
	j.next = at.Offset + 1
	return nil
}

// whole returns an error if the log has deleted records between the last record and an offset.
func (j *archiving) whole(ctx context.Context, to int64) error {
	return deleted(ctx, j.Log, j.topic, j.partition, j.next, to)
}

// finish ends the current file, and adds it to the manifest.
func (j *archiving) finish(end int64) error {
	file, err := j.writer.Finish(end)
	j.writer = nil
	if err != nil {
		return err
	}
	j.part.Files, j.part.End = append(j.part.Files, file), end
	if j.Progress != nil {
		j.progress.Bytes = file.Bytes
		j.Progress(j.progress)
	}
	j.progress = Progress{}
	return j.manifest.Write(j.Dir)
}
