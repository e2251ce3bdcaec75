package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
)

// planned is what a replay will read of a partition. Records and Bytes are of what is not
// finished yet.
type planned struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	End       int64  `json:"end"`
	Finished  int64  `json:"finished"`        // offset up to which an earlier call has written the range
	Records   int64  `json:"records_at_most"` // the number of offsets, some of which may have no record
	Bytes     int64  `json:"bytes_estimated"` // of the records on the log, by a sample
	Needed    int64  `json:"bytes_needed"`    // of the files, at least, by a sample; 0: not known
	// AtMost is about the size of all records of the range, if only some get into the files,
	// or rollups of them, which are usually much smaller. 0: see Needed.
	AtMost int64 `json:"bytes_at_most,omitempty"`
}

// read returns the range that will be read.
func (p *planned) read() bus.Range {
	return bus.Range{Partition: p.Partition, From: min(max(p.From, p.Finished), p.End), End: p.End}
}

// rangesOf returns the ranges of a topic.
func rangesOf(all []planned, topic string) (ranges []bus.Range) {
	for _, p := range all {
		if p.Topic == topic {
			ranges = append(ranges, bus.Range{Partition: p.Partition, From: p.From, End: p.End})
		}
	}
	return ranges
}

// plan finds out which ranges will be read.
func (r *replayRun) plan(ctx context.Context, job *replaying) ([]planned, error) {
	topics := job.sources
	if r.Aggregate {
		topics = []string{job.topics.SeedMetrics}
	}
	held := new(manifest.Manifest)
	if dir := r.directory(); dir != "" {
		m, err := manifest.Read(dir)
		if err != nil && !errors.Is(err, manifest.ErrNone) {
			return nil, err
		}
		if err == nil {
			held = m
		}
	}
	var all []planned
	for _, topic := range topics {
		ranges, _, err := r.ranges(ctx, job.log, topic)
		if err != nil {
			return nil, err
		}
		if missing := r.absent(ranges); missing != nil {
			return nil, fmt.Errorf("%s has no partition %d", topic, *missing)
		}
		for _, part := range ranges {
			p := planned{Topic: topic, Partition: part.Partition, From: part.From, End: part.End, Finished: part.From}
			if t := held.Topic(topic); t != nil && int(part.Partition) < len(t.Partitions) {
				p.Finished = max(p.From, t.Partitions[part.Partition].End)
			}
			left := p.read()
			p.Records = left.End - left.From
			all = append(all, p)
		}
	}
	return all, nil
}

// directory returns the directory that is written to, or "".
func (r *replayRun) directory() string {
	switch {
	case r.Archive != "":
		return r.Archive
	case r.Avro.Avro != "":
		return r.Avro.Avro
	}
	return r.Parquet.Parquet
}

// dryRun says what a replay would read.
func (r *replayRun) dryRun(ctx context.Context, job *replaying, to streams) error {
	all, err := r.plan(ctx, job)
	if err != nil {
		return err
	}
	if err := r.estimated(ctx, job.log, all); err != nil {
		return err
	}
	var records, bytes, needed, atMost int64
	for _, p := range all {
		records, bytes, needed, atMost = records+p.Records, bytes+p.Bytes, needed+p.Needed, atMost+p.AtMost
	}
	free := int64(-1)
	if dir := r.directory(); dir != "" {
		space, err := spaceOf(dir)
		if err != nil {
			return err
		}
		free = space.free
	}
	if r.JSON {
		return writeJSON(to.out, struct {
			Partitions []planned `json:"partitions"`
			Records    int64     `json:"records_at_most"`
			Bytes      int64     `json:"bytes_estimated"`
			Needed     int64     `json:"bytes_needed"`
			AtMost     int64     `json:"bytes_at_most,omitempty"`
			Free       *int64    `json:"bytes_free,omitempty"`
		}{all, records, bytes, needed, atMost, atLeastZero(free)})
	}
	files := ""
	switch {
	case atMost > 0:
		files = r.bound(atMost)
	case needed > 0:
		files = fmt.Sprintf("the files need about %s or more", byteSize(needed))
	}
	return printPlan(to.out, all, records, bytes, files, free)
}

func atLeastZero(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// printPlan prints a plan. files says how much the files need, or nothing.
func printPlan(w io.Writer, all []planned, records, bytes int64, files string, free int64) error {
	for _, p := range all {
		fmt.Fprintf(w, "%s/%d: offsets %d to %d", p.Topic, p.Partition, p.From, p.End)
		if p.Finished > p.From {
			fmt.Fprintf(w, ", of which those below %d are finished", p.Finished)
		}
		fmt.Fprintf(w, ": at most %d records, about %s\n", p.Records, byteSize(p.Bytes))
	}
	_, err := fmt.Fprintf(w, "at most %d records to read, about %s on the log, by a sample of each partition; nothing was written\n", records, byteSize(bytes))
	if files != "" && err == nil {
		_, err = fmt.Fprintln(w, files)
	}
	if free >= 0 && err == nil {
		_, err = fmt.Fprintf(w, "%s are free on the disk\n", byteSize(free))
	}
	return err
}
