package windows_test

import (
	"fmt"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// folded has the results of an engine that has folded a log.
type folded struct {
	outcomes []windows.Outcome // without details
	rollups  []oona.Rollup
}

// foldBoth folds a log with an engine and a model. At the first record for which they differ, it
// returns an error.
func foldBoth(t *testing.T, cfg windows.Config, log []windows.Record, mutant model.Mutant) (f folded, err error) {
	t.Helper()
	e, err := windows.New(cfg, windows.Always(windows.TestCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	m := model.New(cfg, windows.TestCatalogue)
	m.Mutant = mutant
	for _, r := range log {
		before := len(f.rollups)
		o := e.Fold(r, func(r *oona.Rollup) { f.rollups = append(f.rollups, windows.CopyRollup(r)) })
		if wantDetail := o.Reason != windows.ReasonNone; wantDetail != (o.Detail != "") {
			t.Fatalf("offset %d: %s with detail %q", r.Offset, o.Verdict, o.Detail)
		}
		o.Detail = ""
		f.outcomes = append(f.outcomes, o)
		if err := m.Fold(r).Compare(o, f.rollups[before:]); err != nil {
			return f, err
		}
	}
	return f, nil
}

// TestEngineAgreesWithModel compares every outcome and every field of every
// rollup, over random schedules.
func TestEngineAgreesWithModel(t *testing.T) {
	var seen [windows.VerdictCount]int
	reasons := map[windows.Reason]int{}
	rollups := 0
	for seed := *windows.ScheduleFirst; seed < *windows.ScheduleFirst+*windows.ScheduleCount; seed++ {
		cfg, log := windows.RandomLog(seed)
		f, err := foldBoth(t, cfg, log, model.Faithful)
		if err != nil {
			t.Fatalf("schedule %d: %v\nconfiguration %+v", seed, err, cfg)
		}
		again, err := foldBoth(t, cfg, log, model.Faithful)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.rollups {
			if got, want := f.rollups[i].Hash, f.rollups[i].ContentHash(); got != want || again.rollups[i].Hash != want {
				t.Fatalf("schedule %d: rollup %d has hash %x, a second engine's %x, its content's %x", seed, i, got, again.rollups[i].Hash, want)
			}
		}
		count := windows.CountVerdicts(f.outcomes)
		if err := windows.Conserved(len(log), count, f.rollups); err != nil {
			t.Fatalf("schedule %d: %v", seed, err)
		}
		for v, n := range count {
			seen[v] += n
		}
		for _, o := range f.outcomes {
			reasons[o.Reason]++
		}
		rollups += len(f.rollups)
	}
	for v, n := range seen {
		if n == 0 && windows.Verdict(v) != windows.Replayed {
			t.Errorf("no schedule had a record that was %s", windows.Verdict(v))
		}
	}
	for _, r := range []windows.Reason{
		windows.ReasonDuplicate, windows.ReasonLate, windows.ReasonFuture, windows.ReasonStale, windows.ReasonConflict, windows.ReasonTimelines,
		windows.ReasonLayers, windows.ReasonMetrics, windows.ReasonSeeds, windows.ReasonSealed, windows.ReasonConfigured, windows.ReasonVoid,
	} {
		if reasons[r] == 0 {
			t.Errorf("no schedule had the reason %s", r)
		}
	}
	t.Logf("%d rollups, reasons %v", rollups, reasons)
}

// TestModelTellsMutantsApart shows that the comparison finds the errors that it is meant to find.
func TestModelTellsMutantsApart(t *testing.T) {
	for m := model.Faithful + 1; m < model.MutantCount; m++ {
		t.Run(m.String(), func(t *testing.T) {
			for seed := range *windows.ScheduleCount {
				cfg, log := windows.RandomLog(seed)
				if _, err := foldBoth(t, cfg, log, m); err != nil {
					t.Logf("schedule %d: %v", seed, err)
					return
				}
			}
			t.Errorf("the engine agrees with it on %d schedules", *windows.ScheduleCount)
		})
	}
}

// TestTruncatedLogAgreesWithModel truncates random logs at random records, and
// compares every outcome and every field of every rollup with the model's.
func TestTruncatedLogAgreesWithModel(t *testing.T) {
	for seed := *windows.ScheduleFirst; seed < *windows.ScheduleFirst+*windows.ScheduleCount; seed++ {
		windows.TruncateAtRandom(t, seed, func(log windows.TruncatedLog) error {
			m := model.New(log.Config, windows.TestCatalogue).Restart(log.End)
			for i, r := range log.Log {
				if err := m.Fold(r).Compare(log.Outcomes[i], log.Rollups[i]); err != nil {
					return fmt.Errorf("record %d of what is left: %w", i, err)
				}
			}
			return nil
		})
	}
}
