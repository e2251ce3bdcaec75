package windows

import (
	"flag"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/model/exact"
)

var (
	scheduleCount = flag.Uint64("schedules", 150, "random schedules that the engine is compared with its oracle on")
	scheduleFirst = flag.Uint64("schedule", 0, "the first of them")
)

const scheduleRecords = 400

// TestEngineAgreesWithOracle compares every outcome and every field of every
// rollup, over random schedules.
func TestEngineAgreesWithOracle(t *testing.T) {
	var seen [VerdictCount]int
	reasons := map[Reason]int{}
	rollups := 0
	for seed := *scheduleFirst; seed < *scheduleFirst+*scheduleCount; seed++ {
		s := newSchedule(seed)
		log := s.make(scheduleRecords)
		outcomes, emitted := foldAll(t, s.cfg, log)
		wantOutcomes, wantEmitted := oracle{cfg: s.cfg}.fold(log)
		if err := compareRuns(outcomes, emitted, wantOutcomes, wantEmitted); err != nil {
			t.Fatalf("schedule %d: %v\nconfiguration %+v", seed, err, s.cfg)
		}
		_, again := foldAll(t, s.cfg, log)
		for i := range emitted {
			if emitted[i].Hash != again[i].Hash || emitted[i].Hash != emitted[i].ContentHash() {
				t.Fatalf("schedule %d: rollup %d has hash %x, a second engine's %x, its content's %x", seed, i, emitted[i].Hash, again[i].Hash, emitted[i].ContentHash())
			}
		}
		count := countVerdicts(outcomes)
		if err := conserved(len(log), count, emitted); err != nil {
			t.Fatalf("schedule %d: %v", seed, err)
		}
		for v, n := range count {
			seen[v] += n
		}
		for _, o := range outcomes {
			reasons[o.Reason]++
		}
		rollups += len(emitted)
	}
	for v, n := range seen {
		if n == 0 && Verdict(v) != Replayed {
			t.Errorf("no schedule had a record that was %s", Verdict(v))
		}
	}
	for _, r := range []Reason{ReasonDuplicate, ReasonLate, ReasonFuture, ReasonStale, ReasonConflict, ReasonTimelines, ReasonLayers, ReasonMetrics, ReasonSeeds, ReasonSealed, ReasonConfigured, ReasonVoid} {
		if reasons[r] == 0 {
			t.Errorf("no schedule had the reason %s", r)
		}
	}
	t.Logf("%d rollups, reasons %v", rollups, reasons)
}

func countVerdicts(outcomes []Outcome) (count [VerdictCount]int) {
	for _, o := range outcomes {
		count[o.Verdict]++
	}
	return count
}

// conserved checks that each record is accounted for once, given that all
// windows have closed.
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

// TestOracleTellsMutantsApart shows that the comparison would notice the errors
// that it is there for.
func TestOracleTellsMutantsApart(t *testing.T) {
	names := map[mutant]string{
		maximumTimestamp: "maximum timestamp", noIdleness: "no idleness", noDuplicateCheck: "no duplicate check",
		noPath: "no path", ownTrafficOnly: "own traffic only", idleToTheEnd: "idle to the end", lateFramesStay: "late frames stay",
		unboundedClock: "unbounded clock", exclusiveLateness: "exclusive lateness", rejectedIdentities: "rejected identities",
		stepsAsTheyCame: "steps as they came", stepsAcrossEpochs: "steps across epochs", fallsCount: "falls count", farthestFromZero: "farthest from zero",
		allNotMeasured: "not measured, active or not", worstOfLast: "offset of the last worst", identitiesAcross: "identities across windows", noFloor: "no floor", noEviction: "no eviction", noForgetting: "no forgetting", noSeals: "no seals",
		earlyConfiguration: "early configuration", cutWindows: "cut windows", oldBuckets: "buckets of an old horizon",
	}
	for m := faithful + 1; m < mutantCount; m++ {
		t.Run(names[m], func(t *testing.T) {
			for seed := range *scheduleCount {
				s := newSchedule(seed)
				log := s.make(scheduleRecords)
				outcomes, emitted := foldAll(t, s.cfg, log)
				wrongOutcomes, wrongEmitted := oracle{cfg: s.cfg, mutant: m}.fold(log)
				if err := compareRuns(outcomes, emitted, wrongOutcomes, wrongEmitted); err != nil {
					t.Logf("schedule %d: %v", seed, err)
					return
				}
			}
			t.Errorf("the engine agrees with it on %d schedules", *scheduleCount)
		})
	}
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

// copyRollup copies what the engine will reuse.
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

func compareRuns(outcomes []Outcome, emitted []oona.Rollup, wantOutcomes []Outcome, wantEmitted []oracleRollup) error {
	for i := range wantOutcomes {
		if outcomes[i] != wantOutcomes[i] {
			return fmt.Errorf("record %d is %s (%s), the oracle says %s (%s)", i, outcomes[i].Verdict, outcomes[i].Reason, wantOutcomes[i].Verdict, wantOutcomes[i].Reason)
		}
	}
	for i := range min(len(emitted), len(wantEmitted)) {
		if err := compareRollups(&emitted[i], &wantEmitted[i]); err != nil {
			return fmt.Errorf("rollup %d of %s %s at %d: %w", i, wantEmitted[i].Run, wantEmitted[i].Layer, wantEmitted[i].Start, err)
		}
	}
	if len(emitted) != len(wantEmitted) {
		return fmt.Errorf("%d rollups, the oracle has %d", len(emitted), len(wantEmitted))
	}
	return nil
}

// compareRollups compares moments within rounding, all else exactly.
func compareRollups(got *oona.Rollup, want *oracleRollup) error {
	if len(got.Metrics) != len(want.Metrics) {
		return fmt.Errorf("%d metrics, the oracle has %d", len(got.Metrics), len(want.Metrics))
	}
	g, w := *got, want.Rollup
	g.Metrics, w.Metrics, g.Hash, w.Hash = nil, nil, 0, 0
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("\n got %+v\nwant %+v", g, w)
	}
	for i := range want.Metrics {
		g, w := got.Metrics[i], want.Metrics[i]
		if err := exact.CompareMoments(&g, &w); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		if far, some := want.farthest[w.Name]; some {
			w.Worst = far.from(g.Mean)
		}
		g.Sum, g.Mean, g.M2 = w.Sum, w.Mean, w.M2
		if !exact.EqualBesidesMoments(&g, &w) {
			return fmt.Errorf("%s:\n got %+v\nwant %+v", w.Name, g, w)
		}
	}
	return nil
}
