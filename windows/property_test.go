package windows

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

var (
	scheduleCount = flag.Uint64("schedules", 150, "random schedules that the engine is compared with its model on")
	scheduleFirst = flag.Uint64("schedule", 0, "the first of them")
)

const scheduleRecords = 400

func countVerdicts(outcomes []Outcome) (count [VerdictCount]int) {
	for _, o := range outcomes {
		count[o.Verdict]++
	}
	return count
}

// conserved checks that each record is accounted for exactly once. All windows must have closed.
func conserved(records int, count [VerdictCount]int, emitted []oona.Rollup) error {
	total := 0
	for _, n := range count {
		total += n
	}
	if total != records {
		return fmt.Errorf("%d verdicts on %d records", total, records)
	}
	var frames, duplicates int64
	for i := range emitted {
		if emitted[i].Group == oona.Health {
			frames += emitted[i].Frames
			duplicates += emitted[i].Duplicates
		}
	}
	if frames != int64(count[Folded]) || duplicates != int64(count[Duplicate]) {
		return fmt.Errorf("rollups hold %d frames and %d duplicates, the verdicts %d and %d", frames, duplicates, count[Folded], count[Duplicate])
	}
	return nil
}

// foldAll folds a log with a new engine. The outcomes are without details.
func foldAll(t *testing.T, cfg Config, log []Record) ([]Outcome, []oona.Rollup) {
	t.Helper()
	e, err := New(cfg, testCatalogues)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []Outcome
	var emitted []oona.Rollup
	for _, r := range log {
		o := e.Fold(r, func(r *oona.Rollup) { emitted = append(emitted, copyRollup(r)) })
		if wantDetail := o.Reason != ReasonNone; wantDetail != (o.Detail != "") {
			t.Fatalf("offset %d: %s with detail %q", r.Offset, o.Verdict, o.Detail)
		}
		o.Detail = ""
		outcomes = append(outcomes, o)
	}
	return outcomes, emitted
}

// copyRollup copies a rollup with the memory that the engine will reuse.
func copyRollup(r *oona.Rollup) oona.Rollup {
	c := *r
	c.Metrics = slices.Clone(r.Metrics)
	for i := range c.Metrics {
		m := &c.Metrics[i]
		m.Worst = slices.Clone(m.Worst)
		for _, b := range []*oona.Buckets{&m.Histogram.Positive, &m.Histogram.Negative} {
			b.Indexes, b.Counts = slices.Clone(b.Indexes), slices.Clone(b.Counts)
		}
	}
	return c
}
