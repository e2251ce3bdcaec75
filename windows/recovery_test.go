package windows

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// restart continues with a restarted engine, which does not know the earlier records.
func (p *partition) restart(cfg Config, overtaken Commit, end int64) {
	p.t.Helper()
	e, err := Restart(cfg, testCatalogues, overtaken, p.offset, end)
	if err != nil {
		p.t.Fatal(err)
	}
	p.engine, p.rollups = e, nil
}

func lostConfig() Config {
	return withConfig(func(c *Config) {
		c.MaxDelay, c.MaxSkew, c.IdleHorizon = 100*time.Second, 10*time.Second, 20*time.Second
	})
}

// A restarted engine must have read the log to its end, and for MaxDelay and MaxSkew, and for an idle
// horizon. Windows are emitted if they start after the latest frame that the last of these records
// may have.
func TestRestartEmitsFrom(t *testing.T) {
	steady := func(n, step float64) (times []float64) {
		for at := 0.0; at <= n; at += step {
			times = append(times, at)
		}
		return times
	}
	for _, c := range []struct {
		name   string
		end    int64     // end of the log at the restart, relative to the first offset
		times  []float64 // append times
		want   float64   // time in seconds from which on windows are emitted; 0 means never
		change func(*Config)
	}{
		{"one maximum delay and skew", 0, steady(120, 1), 121.000001, nil},
		{"not a moment less", 0, steady(110, 1), 0, nil},
		{"what the log held may have been emitted", 130, steady(150, 1), 140.000001, nil},
		{"an empty log", 0, steady(300, 1), 121.000001, nil},
		{"an outage is no idleness", 0, append([]float64{0, 1000}, steady(1000, 1)[990:]...), 0, nil},
		{"nor is it after it", 0, append([]float64{0}, steadyFrom(1000, 30)...), 1033.000001, nil},
		{"append times that step back", 0, []float64{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 150, 50, 51}, 160.000001, nil},
		{"a longer delay", 0, steady(250, 1), 221.000001, func(c *Config) { c.MaxDelay = 200 * time.Second }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := lostConfig()
			if c.change != nil {
				c.change(&cfg)
			}
			p := newPartition(t, cfg)
			p.offset = 1000
			p.restart(cfg, Commit{}, 1000+c.end)
			if _, emits := p.engine.EmitsFrom(); emits {
				t.Fatal("emits before the first record")
			}
			for _, at := range c.times {
				if o := p.append(at, sample{observed: at}); o.Verdict == Folded && (c.want == 0 || at < c.want) {
					t.Fatalf("the frame of %f is folded", at)
				}
			}
			from, emits := p.engine.EmitsFrom()
			if emits != (c.want > 0) || emits && from != instant(c.want) {
				t.Errorf("emits from %f (%t), want %f", float64(from-origin)/1e6, emits, c.want)
			}
			for _, r := range p.rollups {
				if c.want == 0 || r.Start < instant(c.want) {
					t.Errorf("the window at %d is emitted", (r.Start-origin)/1e6)
				}
			}
		})
	}
}

func steadyFrom(at float64, n int) (times []float64) {
	for range n + 1 {
		times = append(times, at)
		at++
	}
	return times
}

// A window that starts before EmitsFrom is suppressed, and the next one is not. Frames of the
// suppressed window are late, and repeats of them are duplicates.
func TestFirstSeamAfterLoss(t *testing.T) {
	p := newPartition(t, lostConfig())
	p.offset = 5
	p.restart(lostConfig(), Commit{}, 5)
	for s := range 112 { // from 121.000001 on
		p.must(Late, ReasonLost, p.append(float64(s), sample{observed: float64(s)}))
	}
	for s := 112; s < 130; s++ {
		p.must(Late, ReasonLost, p.append(float64(s), sample{observed: float64(s), sequence: int64(s)}))
		p.must(Duplicate, ReasonDuplicate, p.append(float64(s), sample{observed: float64(s), sequence: int64(s)}))
	}
	if c := mustCommit(t, p.engine); c.Metadata[:2] == mustCommit(t, newPartition(t, lostConfig()).engine).Metadata[:2] {
		t.Error("a commit of an engine that was restarted has the version of others")
	}
	for s := 130; s < 160; s++ {
		p.folded(p.append(float64(s), sample{observed: float64(s)}))
	}
	if got := p.closed(); fmt.Sprint(got) != "[run//layer@130 run//layer@140]" {
		t.Errorf("closed: %v", got)
	}
}

// If retention has overtaken the commit, its configurations still hold. Without a commit the
// worker's own configuration holds, and a configuration record at the beginning of the rest
// does not hold for the whole log.
func TestConfigurationAfterLoss(t *testing.T) {
	made := lostConfig()
	made.Length, made.Generation = 30*time.Second, 4
	p := newPartition(t, made)
	p.tick(0)
	next := made
	next.Length, next.Generation = 20*time.Second, 5
	p.fold(0, Record{Configuration: &Configuration{next, instant(600)}})
	c := mustCommit(t, p.engine)
	p.offset += 100
	p.restart(lostConfig(), c, p.offset)
	if got := p.engine.Config(); got != next {
		t.Errorf("continues with %+v, want %+v", got, next)
	}
	for s := range 700 {
		p.append(float64(s), sample{observed: float64(s)})
	}
	lengths := map[time.Duration]bool{}
	for _, r := range p.rollups {
		lengths[time.Duration(r.End-r.Start)*time.Microsecond] = true
	}
	if len(lengths) != 2 || !lengths[made.Length] || !lengths[next.Length] {
		t.Errorf("windows of %v, want some of both configurations", lengths)
	}

	p = newPartition(t, lostConfig())
	p.offset = 7
	p.restart(lostConfig(), Commit{}, 7)
	next = lostConfig()
	next.Length, next.Generation = 20*time.Second, 9
	o := p.fold(0, Record{Configuration: &Configuration{next, instant(5)}})
	p.must(Passed, ReasonVoid, o) // not as far ahead as frames may be
	p.must(Passed, ReasonConfigured, p.fold(0, Record{Configuration: &Configuration{next, instant(500)}}))
	if got := p.engine.configEpochs[0].cfg; got != lostConfig() {
		t.Errorf("before 500 s it is %+v", got)
	}
}

// If a log has lost records at its end, it is handled as if the commit were lost. No window is emitted
// that may have had one of the lost records.
func TestRestartWhereTheLogLostItsEnd(t *testing.T) {
	p := newPartition(t, lostConfig())
	for s := range 200 {
		p.append(float64(s), sample{observed: float64(s), sequence: int64(s) + 1})
	}
	commit := mustCommit(t, p.engine)
	if to, err := commit.Reached(); err != nil || to.ProcessedTo != 200 {
		t.Fatalf("the commit was made at %+v, %v", to, err)
	}
	p.offset = 0
	p.restart(lostConfig(), commit, 150)
	for s := range 150 {
		p.must(Late, ReasonLost, p.append(float64(s), sample{observed: float64(s), sequence: int64(s) + 1}))
	}
	p.must(Late, ReasonLost, p.append(180, sample{observed: 180})) // the clock of the new leader is behind
	if from, emits := p.engine.EmitsFrom(); !emits || from != instant(209.000001) {
		t.Errorf("emits from %f (%t), want 209: %d frames were folded up to 199", float64(from-origin)/1e6, emits, 200)
	}
	for s := 201; s < 260; s++ {
		p.append(float64(s), sample{observed: float64(s)})
	}
	if got := p.closed(); fmt.Sprint(got) != "[run//layer@210 run//layer@220 run//layer@230 run//layer@240]" {
		t.Errorf("closed: %v", got)
	}
}

func TestRestartRefuses(t *testing.T) {
	if _, err := Restart(Config{}, testCatalogues, Commit{}, 1, 1); err == nil || errors.Is(err, ErrCommit) {
		t.Errorf("with a wrong configuration the error is %v", err)
	}
	if _, err := Restart(DefaultConfig(), testCatalogues, Commit{Offset: 3, Metadata: "nonsense"}, 9, 9); !errors.Is(err, ErrCommit) {
		t.Errorf("with an invalid commit the error is %v", err)
	}
}

// lostCommits returns commits of a restarted engine: before any record, while nothing is emitted, and
// later.
func lostCommits(t testing.TB) (commits []Commit) {
	t.Helper()
	e, err := Restart(lostConfig(), testCatalogues, Commit{}, 1000, 1090)
	if err != nil {
		t.Fatal(err)
	}
	for offset := range int64(150) {
		if offset == 0 || offset == 70 || offset == 149 {
			c, err := e.Commit()
			if err != nil {
				t.Fatal(err)
			}
			commits = append(commits, c)
		}
		r := sample{observed: float64(offset)}.record(offset)
		r.Offset, r.AppendedAt = 1000+offset, instant(float64(offset))
		e.Fold(r, func(*oona.Rollup) {})
	}
	return commits
}

// TestGoldenCommitAfterLoss is TestGoldenCommit for version 2.
func TestGoldenCommitAfterLoss(t *testing.T) {
	var b strings.Builder
	for _, c := range lostCommits(t) {
		fmt.Fprintln(&b, c.Offset, c.Metadata)
	}
	path := filepath.Join("testdata", "commits-2.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the commits are\n%swant\n%s", b.String(), want)
	}
	for i, emits := range []bool{false, false, true} {
		var c Commit
		if _, err := fmt.Sscan(strings.Split(string(want), "\n")[i], &c.Offset, &c.Metadata); err != nil {
			t.Fatal(err)
		}
		e, err := Resume(DefaultConfig(), testCatalogues, c)
		if err != nil {
			t.Fatal(err)
		}
		if from, got := e.EmitsFrom(); got != emits || emits && from != instant(121.000001) {
			t.Errorf("commit %d emits from %d (%t), want %t", i, from, got, emits)
		}
	}
}

// truncation is a log that has lost its beginning, and the results of a restarted engine that has
// folded the rest.
type truncation struct {
	first, end int // index of the first remaining record, and number of records at the restart
	commit     Commit
	rest       *clean
	from       oona.Micros
	emits      bool
}

// truncate removes the records before first from the log of a clean run, and folds the rest. The engine
// restarts with the commit from before the record committed, or without a commit if committed is
// negative.
func (c *clean) truncate(t *testing.T, cfg Config, first, end, committed int) *truncation {
	t.Helper()
	cut := &truncation{first: first, end: end}
	if committed >= 0 {
		cut.commit = c.commits[committed]
	}
	e := cut.begin(t, cfg, c.log)
	cut.rest = &clean{cfg: cfg, log: c.log[first:]}
	for _, r := range cut.rest.log {
		cut.rest.commits = append(cut.rest.commits, mustCommit(t, e))
		var rollups []oona.Rollup
		o := e.Fold(r, func(r *oona.Rollup) { rollups = append(rollups, copyRollup(r)) })
		o.Detail = ""
		cut.rest.outcomes, cut.rest.rollups = append(cut.rest.outcomes, o), append(cut.rest.rollups, rollups)
		if from, emits := e.EmitsFrom(); emits && !cut.emits {
			cut.from, cut.emits = from, true
		}
	}
	cut.rest.commits = append(cut.rest.commits, mustCommit(t, e))
	return cut
}

func (cut *truncation) begin(t *testing.T, cfg Config, log []Record) *Engine {
	t.Helper()
	end := log[len(log)-1].Offset + 1
	if cut.end < len(log) {
		end = log[cut.end].Offset
	}
	e, err := Restart(cfg, testCatalogues, cut.commit, log[cut.first].Offset, end)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sound checks conditions that hold for any log: no window is emitted that was emitted before or that
// may lack a record. Each record is in a rollup, is a repeat, or is in a side topic with a reason.
func (cut *truncation) sound(whole *clean) error {
	emitted := slices.Concat(cut.rest.rollups...)
	latest := unset
	for i := range max(cut.first, cut.end) {
		if f := whole.log[i].Frame; f != nil && whole.outcomes[i].Verdict == Folded {
			latest = max(latest, f.ObservedAt)
		}
	}
	for i := range emitted {
		if r := &emitted[i]; r.Start <= latest || r.FirstOffset < whole.log[cut.first].Offset {
			return fmt.Errorf("the rollup of %s %s at %d is emitted, and a frame of %d was folded before", r.Run, r.Layer, r.Start, latest)
		}
	}
	count := countVerdicts(cut.rest.outcomes)
	var frames int64
	for i := range emitted {
		if emitted[i].Group == oona.Health {
			frames += emitted[i].Frames
		}
	}
	if frames != int64(count[Folded]) {
		return fmt.Errorf("rollups hold %d frames, the verdicts %d", frames, count[Folded])
	}
	return nil
}

// resumes crashes at random records. Each successor must give the same results as an engine that was
// never interrupted.
func (cut *truncation) resumes(t *testing.T, rng *rand.Rand) error {
	for at := 0; at < len(cut.rest.log); at += 1 + rng.IntN(200) {
		if _, err := cut.rest.resume(t, at, min(at+100, len(cut.rest.log)), cut.rest.commits[at]); err != nil {
			return fmt.Errorf("resumed before record %d of what is left: %w", at, err)
		}
	}
	return nil
}

// briefly makes schedules with a short MaxDelay.
func briefly(seed uint64) *schedule {
	s := newSchedule(seed)
	s.longestDelay = 4000
	s.cfg.MaxDelay = min(s.cfg.MaxDelay, 4*time.Second)
	s.last = s.cfg
	return s
}

// truncateAtRandom makes the log of a schedule, truncates it at random records, and folds the rest.
func truncateAtRandom(t *testing.T, seed uint64, check func(s *schedule, whole *clean, cut *truncation, cfg Config, rng *rand.Rand) error) {
	t.Helper()
	s := briefly(seed)
	whole := foldClean(t, s.cfg, s.make(scheduleRecords))
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 2 {
		first := 1 + rng.IntN(len(whole.log)/2)
		cfg := whole.inForce(t, first)
		cut := whole.truncate(t, cfg, first, first+rng.IntN(len(whole.log)/3), -1)
		if err := check(s, whole, cut, cfg, rng); err != nil {
			t.Fatalf("schedule %d, without the first %d records, begun when there were %d: %v\nconfiguration %+v", seed, first, cut.end, err, cfg)
		}
	}
}

// TestTruncatedLogIsSound truncates random logs at random records. The rollups must be sound, whether
// or not workers crash.
func TestTruncatedLogIsSound(t *testing.T) {
	lost, emitting, ahead := 0, 0, 0
	for seed := *scheduleFirst; seed < *scheduleFirst+*scheduleCount; seed++ {
		truncateAtRandom(t, seed, func(s *schedule, whole *clean, cut *truncation, _ Config, rng *rand.Rand) error {
			if err := cut.resumes(t, rng); err != nil {
				return err
			}
			if stamp := whole.greatestBefore(cut.first); cut.emits && stamp >= cut.from-oona.Micros(s.longestSkew().Microseconds()) {
				ahead++ // append times had been ahead by more than a maximum delay: that cannot be known
			} else if err := cut.sound(whole); err != nil {
				return err
			}
			for _, o := range cut.rest.outcomes {
				if o.Reason == ReasonLost {
					lost++
				}
			}
			if len(slices.Concat(cut.rest.rollups...)) > 0 {
				emitting++
			}
			return nil
		})
	}
	if lost == 0 || emitting < int(*scheduleCount) || ahead > emitting/10 {
		t.Errorf("of %d logs %d came to emit, %d had clocks ahead; %d frames went to side topics", 2**scheduleCount, emitting, ahead, lost)
	}
	t.Logf("%d logs came to emit, %d had clocks ahead; %d frames went to side topics", emitting, ahead, lost)
}

// inForce returns the settings that a worker needs if the log has lost the records before i: those of
// the last configuration, with the greatest MaxSkew of all.
func (c *clean) inForce(t *testing.T, i int) Config {
	t.Helper()
	s, err := parseSnapshot(c.commits[i])
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.configEpochs.last().cfg
	for _, a := range s.configEpochs {
		cfg.MaxSkew = max(cfg.MaxSkew, a.cfg.MaxSkew)
	}
	return cfg
}

// longestSkew returns the greatest MaxSkew of any schedule.
func (s *schedule) longestSkew() time.Duration { return 3500 * time.Millisecond }

func (c *clean) greatestBefore(i int) oona.Micros {
	greatest := unset
	for _, r := range c.log[:i] {
		greatest = max(greatest, r.AppendedAt)
	}
	return greatest
}

// inStep makes a log whose clock enters tick intervals at the same records, wherever reading begins. So
// it does not matter for idle producers where reading begins. Caps are not reached, because a
// restarted engine cannot know which other windows were open.
func inStep(seed uint64) (Config, []Record) {
	s := briefly(seed)
	s.cfg.IdleHorizon = 4 * s.cfg.TickInterval
	s.cfg.MaxTimelines, s.cfg.MaxAccumulators, s.cfg.MaxTimelineAccumulators = 1000, 100_000, 100_000
	s.last = s.cfg
	log := s.make(2 * scheduleRecords)
	tick := oona.Micros(s.cfg.TickInterval.Microseconds())
	for i := range log {
		log[i].AppendedAt = windowStart(log[i].AppendedAt, 0, tick)
		if c := log[i].Configuration; c != nil {
			c.Config.MaxTimelines, c.Config.MaxAccumulators, c.Config.MaxTimelineAccumulators = 1000, 100_000, 100_000
			c.Config.TickInterval, c.Config.IdleHorizon = s.cfg.TickInterval, s.cfg.IdleHorizon
		}
	}
	return s.cfg, log
}

// TestTruncatedLogEmitsWhatTheWholeLogDoes truncates logs at random records. The commit is lost, or
// needs records that were deleted. The rollups must equal those of an engine that has read the whole
// log, byte for byte. From the first emitted window on, none may be missing.
func TestTruncatedLogEmitsWhatTheWholeLogDoes(t *testing.T) {
	rollups, overtaken := 0, 0
	for seed := *scheduleFirst; seed < *scheduleFirst+*scheduleCount; seed++ {
		cfg, log := inStep(seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		keepsCommit := rng.IntN(2) == 0
		if !keepsCommit { // without the commit, the configurations would be lost, too
			for i := range log {
				log[i].Configuration = nil
			}
		}
		whole := foldClean(t, cfg, log)
		for range 3 {
			first, committed := 1+rng.IntN(len(log)/2), -1
			end := first + rng.IntN(len(log)/3)
			if keepsCommit { // the commit has all configurations of the lost records
				committed = min(first+rng.IntN(20), end)
				if whole.commits[committed].Offset >= log[first].Offset {
					continue
				}
				overtaken++
			}
			cut := whole.truncate(t, cfg, first, end, committed)
			err := cut.equal(whole)
			if err == nil {
				err = cut.resumes(t, rng)
			}
			if err != nil {
				t.Fatalf("schedule %d, without the first %d records (committed %d), begun when there were %d: %v\nconfiguration %+v", seed, first, committed, cut.end, err, cfg)
			}
			rollups += len(slices.Concat(cut.rest.rollups...))
		}
	}
	if rollups == 0 || overtaken == 0 {
		t.Errorf("%d rollups, %d commits overtaken", rollups, overtaken)
	}
	t.Logf("%d rollups, %d commits overtaken", rollups, overtaken)
}

// equal compares the rollups with those of the whole log, from the first emitted window on.
func (cut *truncation) equal(whole *clean) error {
	emitted := slices.Concat(cut.rest.rollups...)
	var want []oona.Rollup
	for i := range whole.rollups {
		for _, r := range whole.rollups[i] {
			if cut.emits && r.Start >= cut.from {
				want = append(want, r)
				if i < max(cut.first, cut.end) {
					return fmt.Errorf("the rollup of %s %s at %d had been emitted before", r.Run, r.Layer, r.Start)
				}
			}
		}
	}
	for i := range min(len(emitted), len(want)) {
		if emitted[i].Hash != want[i].Hash {
			return fmt.Errorf("rollup %d is %+v, of the whole log %+v", i, emitted[i], want[i])
		}
	}
	if len(emitted) != len(want) {
		return fmt.Errorf("%d rollups, of the whole log %d from %d on", len(emitted), len(want), cut.from)
	}
	return nil
}
