package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
)

var (
	// errDiffer is returned if rollups that were computed again are not those on the topics.
	errDiffer = errors.New("the rollups differ from those on the topics")
	// errIncomplete is returned if a part of what was asked for cannot be computed.
	errIncomplete = errors.New("not all of the range can be computed, as the log has lost its beginning")
)

func (r *replayRun) aggregate(ctx context.Context, job *replaying, to streams) error {
	folder, err := job.folder(ctx, nil)
	if err != nil {
		return err
	}
	plan, err := r.plan(ctx, job)
	if err != nil {
		return err
	}
	if err := r.fits(ctx, job, plan); err != nil {
		return err
	}
	extents, err := job.log.Extents(ctx, job.topics.SeedMetrics)
	if err != nil {
		return err
	}
	held := extents[job.topics.SeedMetrics]
	a := &replay.Aggregation{Topics: job.topics, Folder: folder, Commits: job.commits, Beginnings: job.beginnings()}
	out, err := r.sink(ctx, job, len(held), to)
	switch {
	case err != nil:
		return err
	case out != nil:
		a.Emit = rollupsTo(out, job.topics)
	case r.compares(ctx, job):
		a.Compare = job.log
	}
	log, watching, err := r.watched(job, plan)
	if err != nil {
		return abort(out, err)
	}
	defer watching.end()
	a.Log = log
	rollups, err := a.Partitions(ctx, rangesOf(plan, job.topics.SeedMetrics), held)
	watching.end()
	if err != nil {
		return abort(out, foldEnded(ctx, err))
	}
	all := aggregated{compared: a.Compare != nil, counts: folder.Counts()}
	for _, r := range rollups {
		all.add(r)
	}
	if err := finish(out, to, func(w io.Writer) error { return all.print(w, r.JSON) }); err != nil {
		return err
	}
	return all.err()
}

// errFoldInterrupted is returned if a signal has ended a replay that makes rollups.
var errFoldInterrupted = errors.New("interrupted; run the same command again: rollups that were published, and files that are finished, stay")

// foldEnded adds to an error that a signal was the reason.
func foldEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errFoldInterrupted, err)
	}
	return err
}

// compares reports whether there are rollups to compare with: an archive may lack them.
func (r *replayRun) compares(ctx context.Context, job *replaying) bool {
	_, err := job.log.Extents(ctx, job.topics.LayerHealth, job.topics.LayerPerformance)
	return job.held == nil || !errors.Is(err, bus.ErrNoTopic)
}

// aggregated is what an aggregation of all partitions has found.
type aggregated struct {
	counts     aggregate.Counts // also of records from before the range
	rollups    int64
	compared   bool
	comparison replay.Comparison
	since      []*replay.Since
}

func (a *aggregated) add(r *replay.Rollups) {
	a.rollups += int64(r.Count(oona.Health) + r.Count(oona.Performance))
	a.comparison.Add(r.Comparison)
	if r.Since != nil {
		a.since = append(a.since, r.Since)
	}
}

// err returns errDiffer or errIncomplete.
func (a *aggregated) err() error {
	if !a.comparison.Equal() {
		return fmt.Errorf("%w; the first: %s", errDiffer, a.comparison.First)
	}
	latest, incomplete := oona.Micros(0), false
	for _, s := range a.since {
		if !s.Known {
			return fmt.Errorf("%w, in partition %d none of it: %s", errIncomplete, s.Partition, s.Why)
		}
		incomplete = incomplete || !s.Covers()
		latest = max(latest, s.Window)
	}
	if incomplete {
		return fmt.Errorf("%w; all partitions can be computed with --from %s", errIncomplete, latest.Time().Format(time.RFC3339Nano))
	}
	return nil
}

// printedSince is a replay.Since as JSON.
type printedSince struct {
	*replay.Since
	Window *time.Time `json:"window,omitempty"`
}

func (a *aggregated) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return a.printJSON(w)
	}
	fmt.Fprintf(w, "%d frames folded, %d rollups\n", a.counts.Folded, a.rollups)
	printAside(w, a.counts)
	for _, s := range a.since {
		fmt.Fprintln(w, s)
	}
	c := &a.comparison
	if !a.compared {
		fmt.Fprintln(w, "not compared: the rollups go elsewhere, or the archive has no topics of rollups")
		return nil
	}
	how := "byte for byte"
	if len(a.since) > 0 {
		how += "; in partitions whose beginning is lost, without what depends on the record that closed the window"
	}
	fmt.Fprintf(w, "%d are equal to those on the topics, %s\n%d differ, %d are missing from the topics, %d are only on the topics\n", c.Same, how, c.Differ, c.Replayed, c.Logged)
	for _, more := range []struct {
		n    int64
		what string
	}{
		{c.Pending, "not on the topics yet: the aggregators, or the archive, have not come so far"},
		{c.Deleted, "no longer on the topics, which have lost their beginning"},
		{c.Unchecked, "repeats of rollups so far back that they were not compared"},
		{c.Unanswered, "on the topics for windows that cannot be computed"},
	} {
		if more.n > 0 {
			fmt.Fprintf(w, "%d are %s\n", more.n, more.what)
		}
	}
	return nil
}

// printAside says which records are in no rollup. Nothing is sent to side topics.
func printAside(w io.Writer, c aggregate.Counts) {
	for _, aside := range []struct {
		n    int64
		what string
	}{
		{c.Duplicate, "frames are repeats, and count once"},
		{c.Late, "frames are late: they are in no rollup"},
		{c.Quarantined, "frames have a time or an identity that cannot be right: they are in no rollup"},
		{c.Overflowed, "frames are beyond a limit: they are in no rollup, or not all of them is"},
		{c.Dead, "records have no valid frame"},
	} {
		if aside.n > 0 {
			fmt.Fprintf(w, "%d %s\n", aside.n, aside.what)
		}
	}
}

func (a *aggregated) printJSON(w io.Writer) error {
	result := struct {
		Frames      int64              `json:"frames"`
		Duplicates  int64              `json:"duplicates"`
		Late        int64              `json:"late"`
		Quarantined int64              `json:"quarantined"`
		Overflowed  int64              `json:"overflowed"`
		Undecoded   int64              `json:"undecoded"`
		Rollups     int64              `json:"rollups"`
		Comparison  *replay.Comparison `json:"comparison,omitempty"`
		Since       []printedSince     `json:"since,omitempty"`
	}{a.counts.Folded, a.counts.Duplicate, a.counts.Late, a.counts.Quarantined, a.counts.Overflowed, a.counts.Dead, a.rollups, nil, nil}
	if a.compared {
		result.Comparison = &a.comparison
	}
	for _, s := range a.since {
		p := printedSince{Since: s}
		if s.Known {
			at := s.Window.Time()
			p.Window = &at
		}
		result.Since = append(result.Since, p)
	}
	return writeJSON(w, result)
}
