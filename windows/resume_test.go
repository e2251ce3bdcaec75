package windows

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// clean is what an engine made of a whole log, record by record.
type clean struct {
	cfg      Config
	log      []Record
	outcomes []Outcome // without details
	rollups  [][]oona.Rollup
	commits  []Commit // commits[i] is from before record i
}

func foldClean(t *testing.T, cfg Config, log []Record) *clean {
	t.Helper()
	e, err := New(cfg, testCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	c := &clean{cfg: cfg, log: log, rollups: make([][]oona.Rollup, len(log))}
	for i, r := range log {
		c.commits = append(c.commits, mustCommit(t, e))
		o := e.Fold(r, func(r *oona.Rollup) { c.rollups[i] = append(c.rollups[i], copyRollup(r)) })
		o.Detail = ""
		c.outcomes = append(c.outcomes, o)
	}
	c.commits = append(c.commits, mustCommit(t, e))
	return c
}

func mustCommit(t *testing.T, e *Engine) Commit {
	t.Helper()
	c, err := e.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// resume resumes an engine from before record at, and compares all that it says
// until before record end with the clean run. It returns the engine.
func (c *clean) resume(t *testing.T, at, end int, commit Commit) (*Engine, error) {
	t.Helper()
	e, err := Resume(c.cfg, testCatalogue, commit)
	if err != nil {
		return nil, err
	}
	for i, r := range c.log[:end] {
		if r.Offset < commit.Offset {
			continue
		}
		if e.Replaying() != (i < at) {
			return nil, fmt.Errorf("before record %d, Replaying is %t", i, e.Replaying())
		}
		var rollups []oona.Rollup
		o := e.Fold(r, func(r *oona.Rollup) { rollups = append(rollups, copyRollup(r)) })
		o.Detail = ""
		if i < at {
			if o != (Outcome{Verdict: Replayed}) || len(rollups) > 0 {
				return nil, fmt.Errorf("record %d, replayed, is %+v with %d rollups", i, o, len(rollups))
			}
			continue
		}
		if err := c.compare(i, o, rollups); err != nil {
			return nil, err
		}
		if got := mustCommit(t, e); got != c.commits[i+1] {
			return nil, fmt.Errorf("after record %d the commit is %+v, the clean run's %+v", i, got, c.commits[i+1])
		}
	}
	return e, nil
}

func (c *clean) compare(i int, o Outcome, rollups []oona.Rollup) error {
	if o != c.outcomes[i] {
		return fmt.Errorf("record %d is %+v, in the clean run %+v", i, o, c.outcomes[i])
	}
	if len(rollups) != len(c.rollups[i]) {
		return fmt.Errorf("record %d emits %d rollups, in the clean run %d", i, len(rollups), len(c.rollups[i]))
	}
	for j := range rollups {
		if got, want := rollups[j], c.rollups[i][j]; got.Hash != want.Hash || got.Trigger != want.Trigger || got.ContentHash() != want.Hash {
			return fmt.Errorf("record %d emits %+v, in the clean run %+v", i, got, want)
		}
	}
	return nil
}

// TestResume resumes engines at random points of random schedules, some of them
// again and again, and expects of each what the uninterrupted engine said.
func TestResume(t *testing.T) {
	replayed, live := 0, 0
	for seed := *scheduleFirst; seed < *scheduleFirst+*scheduleCount; seed++ {
		s := newSchedule(seed)
		run := foldClean(t, s.cfg, s.make(scheduleRecords))
		rng := rand.New(rand.NewPCG(seed, 1))
		commit := run.commits[0]
		for at := 0; ; {
			end := min(at+rng.IntN(150), len(run.log))
			e, err := run.resume(t, at, end, commit)
			if err != nil {
				t.Fatalf("schedule %d, resumed before record %d: %v\nconfiguration %+v", seed, at, err, run.cfg)
			}
			live += end - at
			replayed += int(run.log[min(at, len(run.log)-1)].Offset - commit.Offset)
			if end == len(run.log) {
				break
			}
			at, commit = end, mustCommit(t, e)
			if commit != run.commits[at] {
				t.Fatalf("schedule %d: the commit before record %d differs from the clean run's", seed, at)
			}
		}
	}
	if replayed == 0 {
		t.Error("nothing was replayed")
	}
	t.Logf("%d records live, %d offsets replayed", live, replayed)
}

// TestResumeAtEveryRecord commits before every record of a schedule.
func TestResumeAtEveryRecord(t *testing.T) {
	for seed := range uint64(8) {
		s := newSchedule(seed)
		run := foldClean(t, s.cfg, s.make(scheduleRecords/2))
		for at := range run.log {
			if _, err := run.resume(t, at, min(at+60, len(run.log)), run.commits[at]); err != nil {
				t.Fatalf("schedule %d, resumed before record %d: %v\nconfiguration %+v", seed, at, err, run.cfg)
			}
		}
	}
}
