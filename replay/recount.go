package replay

import (
	"context"
	"fmt"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// CountAgain reads the records of a partition that a directory has from the log again, and compares
// their counts with those of the manifest.
func (v *Verified) CountAgain(ctx context.Context, log Log, at bus.Position, done *manifest.Partition, selection records.Selection) error {
	if done.Counts == nil {
		return nil
	}
	fault := func(format string, args ...any) {
		v.Faults = append(v.Faults, Fault{at.Topic, at.Partition, fmt.Sprintf(format, args...)})
	}
	extents, err := log.Extents(ctx, at.Topic)
	if err != nil {
		return err
	}
	var held bus.Extent
	if all := extents[at.Topic]; int(at.Partition) < len(all) {
		held = all[at.Partition]
	}
	switch {
	case done.End > held.End:
		fault("the log ends at offset %d, and the files at %d: the topic was made again or has lost its end, or this is another cluster", held.End, done.End)
		return nil
	case done.From < held.Start: // the counts are of the whole range
		v.Deleted += min(held.Start, done.End) - done.From
		return nil
	}
	counted := new(counter)
	extraction := &Extraction{Log: log, Selection: selection, Output: counted}
	if err := extraction.Extract(ctx, at.Topic, bus.Range{Partition: at.Partition, From: done.From, End: done.End}); err != nil {
		return err
	}
	v.Compared += counted.Records
	if counted.Counts != *done.Counts {
		fault("the log has other records in the range than the manifest says: %s; the topic was made again, or this is another cluster", done.Counts.Differences(counted.Counts))
	}
	return nil
}

// counter is an Output that counts.
type counter struct{ manifest.Counts }

// Open begins a range.
func (c *counter) Open(_ context.Context, _ string, r bus.Range) (Writer, int64, error) {
	return c, r.From, nil
}

// Write counts a record.
func (c *counter) Write(r *records.Record) error {
	c.Add(r.Counts())
	return nil
}

func (c *counter) Close(int64) error { return nil }
func (c *counter) Abort() error      { return nil }
