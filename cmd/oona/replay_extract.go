package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// shownUndecodable is how many records that cannot be decoded are logged one by one.
const shownUndecodable = 10

// tally counts what was read in this run of the command.
type tally struct {
	manifest.Counts
	byTopic map[string]*manifest.Counts
}

// extract gives what is selected of all sources to an output.
func (r *replayRun) extract(ctx context.Context, job *replaying, output replay.Output) (*tally, error) {
	plan, err := r.plan(ctx, job)
	if err != nil {
		return nil, err
	}
	if err := r.fits(ctx, job, plan); err != nil {
		return nil, err
	}
	log, watching, err := r.watched(job, plan)
	if err != nil {
		return nil, err
	}
	defer watching.end()
	read := &tally{byTopic: map[string]*manifest.Counts{}}
	extraction := &replay.Extraction{Log: log, Selection: r.Select.selection(), Output: output}
	there := r.Select.seen()
	if there != nil {
		extraction.Decoded = there.add
	}
	for _, p := range plan {
		counts := read.byTopic[p.Topic]
		if counts == nil {
			counts = new(manifest.Counts)
			read.byTopic[p.Topic] = counts
		}
		extraction.Read = func(record *records.Record) {
			counts.Add(record.Counts())
			if record.Err != nil && counts.Unread <= shownUndecodable {
				job.logger.Warn("a record cannot be decoded, and is left out", "err", record.Err)
			}
		}
		err := extraction.Extract(ctx, p.Topic, bus.Range{Partition: p.Partition, From: p.From, End: p.End})
		if err != nil && ctx.Err() != nil {
			return read, errors.Join(errInterrupted, err)
		}
		if err != nil {
			return read, err
		}
	}
	watching.end()
	for _, topic := range slices.Sorted(maps.Keys(read.byTopic)) {
		counts := read.byTopic[topic]
		read.Add(*counts)
		if counts.Unread > 0 {
			fmt.Fprintf(job.messages, "oona: %s: records that cannot be decoded, and are left out: %d; an archive (--archive) has them\n", topic, counts.Unread)
		}
	}
	continued := slices.ContainsFunc(plan, func(p planned) bool { return p.Finished > p.From })
	if there != nil && read.Rows == 0 && !continued { // what an earlier call has read may have been selected
		there.explain(job.messages)
	}
	return read, nil
}

// errInterrupted is returned if a signal has ended a replay.
var errInterrupted = errors.New("interrupted; what is finished stays, and the same command continues it")

// absent returns a partition that was asked for and that none of the ranges has.
func (r *replayRun) absent(ranges []bus.Range) *int32 {
	for _, p := range r.Partition {
		found := false
		for _, part := range ranges {
			found = found || part.Partition == p
		}
		if !found {
			return &p
		}
	}
	return nil
}
