package windows

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// budgetCase describes timelines by the properties that determine their size in a commit.
type budgetCase struct {
	behind    oona.Micros // how far watermarks are behind the log, at most
	recent    bool        // whether the timelines were admitted above the safe offset
	stretches int         // number of intervals of sealed windows in each timeline
	want      int         // number of timelines that fit
}

// snapshot returns a snapshot of n timelines after a year of a busy log. Their watermarks are evenly
// spread.
func (c budgetCase) snapshot(n int) *snapshot {
	cfg := DefaultConfig()
	cfg.MaxTimelines = 1 << 20
	s := &snapshot{
		configEpochs: configEpochs{newConfigEpoch(cfg, unset, unknown)}, safe: logtime.ReplayPoint{Offset: 3e10, Clock: logtime.Clock{Started: true, Previous: origin - 2e6, Now: 3e13}}, processedTo: 3e10 + 2e6,
		maxAppendedAt: origin, floor: origin - 26*3600e6,
	}
	for i := range n {
		f := frozen{hash: uint64(i+1) << 40, admitted: unknown, watermark: origin - c.behind/oona.Micros(n)*oona.Micros(i) - 1}
		if c.recent {
			f.admitted = s.safe.Offset + int64(i)*1000
		}
		start := windowStart(f.watermark, 0, 10e6) + 10e6
		for range c.stretches {
			f.seals = append(f.seals, seal{s.configEpochs[0], start, start + 30e6, 300})
			start += 40e6
		}
		s.timelines = append(s.timelines, f)
	}
	return s
}

func fits(s *snapshot) bool { return len(s.text()) <= s.limit() }

// inIncarnation adds to s what oona topics apply writes to a new log.
func inIncarnation(s *snapshot) *snapshot {
	s.incarnation, s.lastAppendedAt = oona.Incarnation(s.maxAppendedAt-300*24*3600e6), s.maxAppendedAt-3e6
	for _, a := range s.configEpochs {
		a.cfg.Reducer, a.cfg.Catalogue = Reducer, oona.FirstCatalogue
	}
	return s
}

// TestMetadataBudget checks how many timelines fit into a commit, and that the documents
// have the same table.
func TestMetadataBudget(t *testing.T) {
	const second, hour = 1_000_000, 3_600_000_000
	var pages [2]string
	for i, page := range []string{"../docs/operations.md", "../docs/decisions/0007-commit-format.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		pages[i] = string(text)
	}
	t.Log("behind the log | admitted lately | stretches of seals each | timelines that fit")
	for _, c := range []budgetCase{
		{30 * second, false, 0, 224},
		{30 * second, true, 0, 183},
		{hour, false, 0, 208},
		{24 * hour, false, 0, 197},
		{24 * hour, true, 0, 164},
		{30 * second, true, 1, 147},
		{30 * second, true, 3, 104},
		{24 * hour, true, 3, 98},
		{24 * hour, true, 20, 30},
	} {
		n := 1
		for fits(c.snapshot(n + 1)) {
			n++
		}
		t.Logf("%14s | %15t | %23d | %d", fmt.Sprint(c.behind/second, " s"), c.recent, c.stretches, n)
		if n != c.want {
			t.Errorf("%d of %+v fit", n, c)
		}
		behind, recent := fmt.Sprint(c.behind/second, " s"), map[bool]string{true: "yes", false: "no"}[c.recent]
		if c.behind >= hour {
			behind = fmt.Sprint(c.behind/hour, " h")
		}
		row := fmt.Sprintf("| %s | %s | %d | %d |\n", behind, recent, c.stretches, n)
		for i, page := range pages {
			if !strings.Contains(page, row) {
				t.Errorf("document %d has no row %s", i, row)
			}
		}
		if of := inIncarnation(c.snapshot(n)); !fits(of) || len(of.text()) > len(c.snapshot(n).text())+16 {
			t.Errorf("%d of %+v take %d bytes in a log with an incarnation, and %d in one without", n, c, len(of.text()), len(c.snapshot(n).text()))
		}
		s := c.snapshot(n)
		back, err := parseSnapshot(Commit{s.safe.Offset, s.text()})
		if err != nil || back.sealCount() != s.sealCount() || len(back.timelines) != n {
			t.Errorf("%d of %+v do not come back: %v", n, c, err)
		}
	}
}

// MostTimelines do not fit into a commit, even if their watermarks are within a second of each other.
// Slightly fewer may fit.
func TestMostTimelines(t *testing.T) {
	c := budgetCase{behind: 1_000_000}
	if fits(c.snapshot(MostTimelines)) {
		t.Errorf("%d timelines fit", MostTimelines)
	}
	if n := MostTimelines * 9 / 10; !fits(c.snapshot(n)) {
		t.Errorf("%d timelines do not fit", n)
	}
}

// TestConfigurationsInTheBudget checks how many timelines fit with how many configurations,
// and that the documents have the same table.
func TestConfigurationsInTheBudget(t *testing.T) {
	const minute = 60_000_000
	for _, c := range []struct{ configurations, want int }{
		{1, 164}, {8, 159}, {32, 140}, {64, 115},
	} {
		build := func(n int) *snapshot {
			s := budgetCase{behind: 24 * 60 * minute, recent: true}.snapshot(n)
			for i := 1; i < c.configurations; i++ { // the length and the generation change
				cfg := s.configEpochs[0].cfg
				cfg.Generation, cfg.Length = int32(i+1), cfg.Length+time.Duration(i%2)*5*time.Second
				s.configEpochs = append(s.configEpochs, newConfigEpoch(cfg, origin-oona.Micros(c.configurations-i)*minute, unknown))
			}
			return s
		}
		n := 1
		for fits(build(n + 1)) {
			n++
		}
		if n != c.want {
			t.Errorf("%d timelines fit with %d configurations, want %d", n, c.configurations, c.want)
		}
		row := fmt.Sprintf("| %d | %d |\n", c.configurations, n)
		for _, page := range []string{"../docs/operations.md", "../docs/decisions/0007-commit-format.md"} {
			if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), row) {
				t.Errorf("%s has no row %s (%v)", page, row, err)
			}
		}
		if of := inIncarnation(build(n)); !fits(of) {
			t.Errorf("%d timelines and %d configurations take %d bytes in a log with an incarnation", n, c.configurations, len(of.text()))
		}
		if back, err := parseSnapshot(Commit{build(n).safe.Offset, build(n).text()}); err != nil || len(back.configEpochs) != c.configurations {
			t.Errorf("%d configurations do not come back: %v", c.configurations, err)
		}
	}
}

// If configurations take most of a commit, the error says so. The commit fits again when
// they have expired.
func TestBrinkOfConfigurations(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	at := 0.0
	var err error
	for n := int32(1); err == nil && n < 1000; n++ {
		p.must(Passed, ReasonConfigured, p.configure(at, at+100, generation(n, func(c *Config) { c.Length += time.Duration(n%2) * 5 * time.Second })))
		at += 30
		_, err = p.engine.Commit()
	}
	if !errors.Is(err, ErrMetadata) || !strings.Contains(err.Error(), "max-delay") {
		t.Fatalf("the error is %v", err)
	}
	if strings.Contains(err.Error(), "max-timelines") {
		t.Errorf("the advice is about timelines: %v", err)
	}
	for range 200 { // replays do not need them either, once the log clock has advanced by a horizon
		at += 1000
		p.tick(at)
	}
	if c := mustCommit(t, p.engine); len(c.Metadata) > 200 {
		t.Errorf("expired, they take %d bytes", len(c.Metadata))
	}
}

// If a commit is too long, the engine continues. It can commit again when there are fewer
// timelines and seals.
func TestBrinkOfTheMetadata(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) {
		c.MaxTimelines, c.MaxAccumulators, c.MaxTimelineAccumulators = 1000, 150, 1
	}))
	var last Commit
	fitted := 0
	for i := range 1000 {
		run := fmt.Sprint("run", i)
		p.append(0, sample{run: run, observed: 10}) // opens a window, or is sealed
		p.must(Overflowed, ReasonSealed, p.append(0, sample{run: run, observed: float64(20 + 20*(i%3))}))
		c, err := p.engine.Commit()
		if err != nil {
			if !errors.Is(err, ErrMetadata) || !strings.Contains(err.Error(), fmt.Sprint(i+1, " timelines")) {
				t.Fatalf("with %d timelines the error is %v, want ErrMetadata and the numbers", i+1, err)
			}
			break
		}
		last, fitted = c, i+1
	}
	t.Logf("%d timelines with a sealed window each fit: %d bytes", fitted, len(last.Metadata))
	if fitted < 128 || fitted == 1000 {
		t.Fatalf("%d fit, want at least the default of MaxTimelines, and not all", fitted)
	}
	if _, err := Resume(DefaultConfig(), testCatalogues, last); err != nil {
		t.Errorf("the last commit is refused: %v", err)
	}
	now := p.silence(0)
	p.tick(now + 90_000)
	p.tick(now + 90_001)
	if c := mustCommit(t, p.engine); len(c.Metadata) > 200 {
		t.Errorf("when all are forgotten, the commit has %d bytes", len(c.Metadata))
	}
}
