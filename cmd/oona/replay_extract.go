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
	// nothing is errNothing if something was asked for, and there is none of it.
	nothing error
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
	there, selected := r.Select.seen(), false
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
			selected = selected || record.Selected
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
	if there != nil && !selected {
		read.nothing, err = r.nothing(there, plan)
	}
	return read, err
}

// errNothing is returned if something was asked for, and there is none of it.
var errNothing = errors.New("nothing was selected")

// nothing returns errNothing, with the reason, unless the directory has what an earlier call
// has selected.
func (r *replayRun) nothing(there *seen, plan []planned) (nothing, failed error) {
	if !slices.ContainsFunc(plan, func(p planned) bool { return p.Finished > p.From }) {
		return fmt.Errorf("%w: %s", errNothing, there.why()), nil
	}
	m, err := manifest.Read(r.directory())
	if err != nil {
		return nil, err
	}
	for _, p := range plan {
		if len(m.Partition(p.Topic, p.Partition).Files) > 0 {
			return nil, nil
		}
	}
	return fmt.Errorf("%w, neither now nor when the directory was begun", errNothing), nil
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
