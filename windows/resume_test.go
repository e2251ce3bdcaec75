package windows

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// clean has the results of an engine that has folded a whole log, for each record.
type clean struct {
	cfg      Config
	log      []Record
	outcomes []Outcome // without details
	rollups  [][]oona.Rollup
	commits  []Commit // commits[i] was made before record i
}

func foldClean(t *testing.T, cfg Config, log []Record) *clean {
	t.Helper()
	e, err := New(cfg, testCatalogues)
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

// resume resumes an engine that continues with record at. It compares all results up to record end,
// exclusive, with the clean run, and returns the engine.
func (c *clean) resume(t *testing.T, at, end int, commit Commit) (*Engine, error) {
	t.Helper()
	e, err := Resume(c.cfg, testCatalogues, commit)
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

// TestResume resumes engines at random points of random schedules, some of them repeatedly. Each must
// give the same results as the engine that was not interrupted.
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

// omission removes from a commit something that a replay cannot rebuild.
type omission struct {
	name string
	from func(e *Engine, s *snapshot)
}

// omissions has everything that a commit must have. Without any one of them, the results of some
// schedule differ.
var omissions = []omission{
	{"previous append time", func(_ *Engine, s *snapshot) { s.safe.Clock.Previous = s.maxAppendedAt }},
	{"log clock", func(_ *Engine, s *snapshot) { s.safe.Clock.Now = 0 }},
	{"greatest append time", func(_ *Engine, s *snapshot) { s.maxAppendedAt = s.safe.Clock.Previous }},
	{"held horizon", func(e *Engine, s *snapshot) {
		held := e.idleBuckets
		e.idleBuckets = logtime.IdleBuckets{}
		*s = *e.snapshot()
		e.idleBuckets = held
	}},
	{"windows' first offsets", func(e *Engine, s *snapshot) {
		s.safe = e.idleBuckets.Earliest(e.bucket(), logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock})
	}},
	{"admission offset", func(_ *Engine, s *snapshot) { eachFrozen(s, func(f *frozen) { f.admitted = unknown }) }},
	{"seals", func(_ *Engine, s *snapshot) { eachFrozen(s, func(f *frozen) { f.seals = nil }) }},
	{"watermarks", func(_ *Engine, s *snapshot) { eachFrozen(s, func(f *frozen) { f.watermark -= 3_000_000 }) }},
	{"floor", func(_ *Engine, s *snapshot) { s.floor = unset }},
	{"configurations before the last", func(_ *Engine, s *snapshot) {
		s.configEpochs = s.configEpochs[len(s.configEpochs)-1:]
		s.configEpochs[0].record = unknown // otherwise the commit would be refused
		eachFrozen(s, func(f *frozen) {
			f.seals = slices.DeleteFunc(slices.Clone(f.seals), func(e seal) bool { return e.configEpoch.from != s.configEpochs[0].from })
		})
	}},
	{"offsets of configurations", func(_ *Engine, s *snapshot) {
		for _, a := range s.configEpochs {
			a.record = unknown
		}
	}},
	{"quiet timelines", func(e *Engine, s *snapshot) {
		var kept []frozen
		for _, f := range s.timelines {
			if e.timelines.unresolved[f.hash] == nil && !e.quietHash(f.hash) {
				kept = append(kept, f)
			}
		}
		s.timelines = kept
	}},
}

func eachFrozen(s *snapshot, f func(*frozen)) {
	for i := range s.timelines {
		f(&s.timelines[i])
	}
}

func (e *Engine) quietHash(hash uint64) bool {
	quiet := false
	e.timelines.all(func(t *timeline) { quiet = quiet || t.hash == hash && t.quiet() })
	return quiet
}

// outcomesAfter folds a log. At record at, it replaces the engine by one that was resumed from a
// commit with the omission.
func (o omission) outcomesAfter(t *testing.T, run *clean, at int) error {
	t.Helper()
	e, err := New(run.cfg, testCatalogues)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range run.log[:at] {
		e.Fold(r, func(*oona.Rollup) {})
	}
	s := e.snapshot()
	o.from(e, s)
	e, err = Resume(run.cfg, testCatalogues, Commit{Offset: s.safe.Offset, Metadata: s.text()})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range run.log {
		if r.Offset < s.safe.Offset {
			continue
		}
		var rollups []oona.Rollup
		outcome := e.Fold(r, func(r *oona.Rollup) { rollups = append(rollups, copyRollup(r)) })
		outcome.Detail = ""
		if i < at {
			continue
		}
		if err := run.compare(i, outcome, rollups); err != nil {
			return err
		}
	}
	return nil
}

// TestCommitNeedsAllOfIt shows that TestResume would find a commit that lacks something.
func TestCommitNeedsAllOfIt(t *testing.T) {
	for _, o := range omissions {
		t.Run(o.name, func(t *testing.T) {
			for seed := range *scheduleCount {
				s := newSchedule(seed)
				run := foldClean(t, s.cfg, s.make(scheduleRecords))
				for at := 50; at < len(run.log); at += 50 {
					if err := o.outcomesAfter(t, run, at); err != nil {
						t.Logf("schedule %d, resumed before record %d: %v", seed, at, err)
						return
					}
				}
			}
			t.Errorf("nothing depends on it in %d schedules", *scheduleCount)
		})
	}
}
