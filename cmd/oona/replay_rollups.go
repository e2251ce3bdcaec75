package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/replay/typed"
	"github.com/morphogenetic/oona/schemas/avro"
)

// replayedSuffix is what the prefix of the topics has in addition, by which files name
// rollups that a replay has made: they are on no topic.
const replayedSuffix = ".replay"

// rollupFiles writes rollups as records of topics that do not exist. Their offsets count the
// rollups of a partition and group, so a replay that was interrupted is continued, if it is
// given again with the same settings.
type rollupFiles struct {
	ctx    context.Context
	output replay.Output
	topics oona.Topics
	done   func() error // is called at the end, whatever happens
	tables func() *manifest.Manifest

	partition int32
	open      [2]replay.Writer // by group; nil: no partition is open
	from      [2]int64         // what the files have of it
	next      [2]int64
}

// rollupRecords returns Avro files for rollups.
func (r *replayRun) rollupRecords(ctx context.Context, job *replaying) (sink, error) {
	topics, err := oona.NewTopics(job.Prefix + replayedSuffix)
	if err != nil {
		return nil, err
	}
	lock, err := manifest.Lock(r.Avro.Avro)
	if err != nil {
		return nil, err
	}
	output := &typed.Output{Dir: r.Avro.Avro, Oona: worker.ReadBuild().Version, Options: typed.Options{Codec: r.Avro.AvroCodec, FileBytes: int64(r.FileSize)}}
	return &rollupFiles{ctx: ctx, output: output, topics: topics, done: lock.Close, tables: output.Manifest}, nil
}

// rollupTables returns Parquet files for rollups.
func (r *replayRun) rollupTables(ctx context.Context, job *replaying) (sink, error) {
	topics, err := oona.NewTopics(job.Prefix + replayedSuffix)
	if err != nil {
		return nil, err
	}
	var known *catalogue.Catalogue
	if r.Catalogue != "" {
		known, err = catalogue.Open(r.Catalogue)
	} else {
		known, err = r.knownMetrics(ctx, job)
	}
	if err != nil {
		return nil, err
	}
	lock, err := manifest.Lock(r.Parquet.Parquet)
	if err != nil {
		return nil, err
	}
	output := r.Parquet.output(job, known)
	output.Topics, output.Prefix = topics, job.Prefix+replayedSuffix
	return &rollupFiles{ctx: ctx, output: output, topics: topics, done: lock.Close, tables: output.Manifest}, nil
}

func (f *rollupFiles) Rollup(partition int32, r *oona.Rollup) error {
	if f.open[0] == nil || partition != f.partition {
		if err := f.begin(partition); err != nil {
			return err
		}
	}
	offset := f.next[r.Group]
	f.next[r.Group]++
	if offset < f.from[r.Group] {
		return nil
	}
	return f.open[r.Group].Write(&records.Record{
		At:      bus.Position{Topic: f.topics.Rollup(r.Group), Partition: partition, Offset: offset, Appended: r.End},
		Message: message.NewMessage("", avro.AppendRollup(nil, r)),
		Rollup:  r, Readings: 1, Selected: true,
	})
}

// begin ends the open partition, and begins another one.
func (f *rollupFiles) begin(partition int32) (err error) {
	if err := f.end(); err != nil {
		return err
	}
	f.partition, f.next = partition, [2]int64{}
	for _, g := range []oona.Group{oona.Health, oona.Performance} {
		if f.open[g], f.from[g], err = f.output.Open(f.ctx, f.topics.Rollup(g), bus.Range{Partition: partition, End: math.MaxInt64}); err != nil {
			f.open[g] = nil
			return err
		}
	}
	return nil
}

// end ends the open partition, if there is one. Files that have more rollups than the replay
// has made are of another one.
func (f *rollupFiles) end() error {
	var all error
	for g, w := range f.open {
		f.open[g] = nil
		if w == nil {
			continue
		}
		if f.next[g] < f.from[g] {
			all = errors.Join(all, fmt.Errorf("%w: they have %d rollups of partition %d, and this replay makes %d", errOtherFiles, f.from[g], f.partition, f.next[g]), w.Abort())
			continue
		}
		all = errors.Join(all, w.Close(f.next[g]))
	}
	return all
}

// errOtherFiles is returned if files cannot be those of the same replay.
var errOtherFiles = errors.New("the files are of another replay; use another directory")

func (f *rollupFiles) Close() error { return errors.Join(f.end(), f.done()) }

func (f *rollupFiles) Abort() error {
	all := f.done()
	for _, w := range f.open {
		if w != nil {
			all = errors.Join(all, w.Abort())
		}
	}
	return all
}

func (f *rollupFiles) results(to streams) io.Writer {
	if m := f.tables(); m != nil {
		if err := printTables(to.messages, m, false); err != nil {
			fmt.Fprintln(to.messages, err)
		}
	}
	return to.out
}
