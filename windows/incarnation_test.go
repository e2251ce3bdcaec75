package windows

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

const firstLife = oona.Incarnation(origin - 3600e6)

// begin appends an incarnation record.
func (p *partition) begin(at float64, number oona.Incarnation) Outcome {
	return p.fold(at, Record{Incarnation: &oona.IncarnationStart{Number: number, PreviousEnd: oona.NoOffset, Reason: "test"}})
}

// A trigger has the incarnation of the log at its record. Triggers ascend over all incarnations.
func TestTriggersHaveTheirIncarnation(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 1}))
	p.folded(p.append(16, sample{observed: 16}))
	p.must(Passed, ReasonBegun, p.begin(17, firstLife))
	p.folded(p.append(26, sample{observed: 26}))
	p.must(Passed, ReasonVoid, p.begin(27, firstLife))
	p.must(Passed, ReasonVoid, p.begin(27, firstLife-1))
	p.must(Passed, ReasonBegun, p.begin(28, firstLife+60e6))
	p.folded(p.append(36, sample{observed: 36}))
	want := []oona.Trigger{{Offset: 1}, {Offset: 1}, {Incarnation: firstLife, Offset: 3}, {Incarnation: firstLife, Offset: 3},
		{Incarnation: firstLife + 60e6, Offset: 7}, {Incarnation: firstLife + 60e6, Offset: 7}}
	if len(p.rollups) != len(want) {
		t.Fatalf("%d rollups, want %d", len(p.rollups), len(want))
	}
	for i, r := range p.rollups {
		if r.Trigger != want[i] {
			t.Errorf("rollup %d has the trigger %+v, want %+v", i, r.Trigger, want[i])
		}
	}
}

// An incarnation record does not start the log clock. So a configuration after it still applies to the
// whole log.
func TestConfigurationBehindTheFirstIncarnation(t *testing.T) {
	configured := generation(1, func(c *Config) { c.Length = 20 * time.Second })
	p := newPartition(t, DefaultConfig())
	p.must(Passed, ReasonBegun, p.begin(0, firstLife))
	between := mustCommit(t, p.engine)
	if err := p.engine.Refuses(Configuration{Config: configured, From: 0}, instant(0)); err != nil {
		t.Errorf("as the next record the configuration is refused: %v", err)
	}
	fold := func(p *partition) {
		t.Helper()
		p.must(Passed, ReasonConfigured, p.configure(0, 0, configured))
		p.folded(p.append(1, sample{observed: 1}))
		p.folded(p.append(26, sample{observed: 26}))
		p.wantClosed("run//layer@0")
		if got := p.engine.Config(); got != configured {
			t.Errorf("the configuration is %+v", got)
		}
	}
	fold(p)
	resumed, err := Resume(DefaultConfig(), testCatalogues, between)
	if err != nil {
		t.Fatal(err)
	}
	q := &partition{t: t, engine: resumed, offset: 1}
	fold(q)
	if a, b := mustCommit(t, p.engine), mustCommit(t, q.engine); a != b {
		t.Errorf("commits are %+v, and resumed between the records %+v", a, b)
	}
}

// A commit has the incarnation and the append time of the last record. An engine that
// resumes continues in that incarnation.
func TestCommitHoldsTheIncarnation(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.must(Passed, ReasonBegun, p.begin(0, firstLife))
	p.folded(p.append(1, sample{observed: 1, sequence: 1}))
	p.folded(p.append(0.5, sample{observed: 1, sequence: 2}))
	c := mustCommit(t, p.engine)
	reached, err := c.Reached()
	if want := (Reached{3, firstLife, instant(0.5), true}); err != nil || reached != want {
		t.Errorf("the commit says %+v, %v; want %+v", reached, err, want)
	}
	e, err := Resume(DefaultConfig(), testCatalogues, c)
	if err != nil {
		t.Fatal(err)
	}
	q := &partition{t: t, engine: e, offset: c.Offset}
	q.must(Replayed, ReasonNone, q.append(1, sample{observed: 1, sequence: 1}))
	q.must(Replayed, ReasonNone, q.append(0.5, sample{observed: 1, sequence: 2}))
	if again := mustCommit(t, q.engine); again != c || q.engine.Incarnation() != firstLife {
		t.Errorf("replayed it is %+v in incarnation %d, want %+v", again, q.engine.Incarnation(), c)
	}
	q.folded(q.append(16, sample{observed: 16}))
	if len(q.rollups) != 2 || q.rollups[0].Trigger != (oona.Trigger{Incarnation: firstLife, Offset: 3}) {
		t.Errorf("emitted: %+v", q.rollups)
	}
}

// As long as the log has no incarnation record, commits have version 1.
func TestCommitsAreOldUntilTheLogIsNew(t *testing.T) {
	for name, c := range map[string]struct {
		cfg     Config
		begin   oona.Incarnation
		version byte
	}{
		"an old log":                 {DefaultConfig(), 0, metadataVersion},
		"an incarnation":             {DefaultConfig(), firstLife, metadataVersionLog},
		"a catalogue":                {withConfig(func(c *Config) { c.Catalogue = oona.FirstCatalogue }), 0, metadataVersionLog},
		"another catalogue":          {withConfig(func(c *Config) { c.Catalogue = oona.CatalogueHash{7} }), 0, metadataVersionLog},
		"an incarnation, and old":    {DefaultConfig(), firstLife, metadataVersionLog},
		"another and an incarnation": {withConfig(func(c *Config) { c.Catalogue = oona.CatalogueHash{7} }), firstLife, metadataVersionLog},
	} {
		p := newPartition(t, c.cfg)
		if c.begin != 0 {
			p.must(Passed, ReasonBegun, p.begin(0, c.begin))
		}
		p.folded(p.append(1, sample{observed: 1}))
		commit := mustCommit(t, p.engine)
		raw, err := metadataCoding.DecodeString(commit.Metadata)
		if err != nil || raw[0]&versionBits != c.version {
			t.Errorf("%s: the commit has version %d, want %d (%v)", name, raw[0]&versionBits, c.version, err)
		}
		e, err := Resume(DefaultConfig(), testCatalogues, commit)
		if err != nil {
			t.Fatal(err)
		}
		if e.Config() != c.cfg {
			t.Errorf("%s: resumed with %+v, want %+v", name, e.Config(), c.cfg)
		}
	}
}

// If the log has lost its end, an incarnation record is written after the remaining records, and
// nothing is emitted in the old incarnation. So readers, which compare triggers, accept all new
// rollups.
func TestRestartInAnIncarnation(t *testing.T) {
	p := newPartition(t, lostConfig())
	p.must(Passed, ReasonBegun, p.begin(0, firstLife))
	for s := range 200 {
		p.append(float64(s), sample{observed: float64(s), sequence: int64(s) + 1})
	}
	before := p.rollups[len(p.rollups)-1].Trigger
	commit := mustCommit(t, p.engine)
	p.offset = 0
	p.restart(lostConfig(), commit, 152)
	p.begin(0, firstLife)
	for s := range 150 {
		p.must(Late, ReasonLost, p.append(float64(s), sample{observed: float64(s), sequence: int64(s) + 1}))
	}
	p.must(Passed, ReasonBegun, p.begin(151, firstLife+60e6)) // the last record that the log has at the restart
	for s := 152; s < 400; s++ {
		p.append(float64(s), sample{observed: float64(s), sequence: int64(s) + 1})
	}
	if len(p.rollups) == 0 {
		t.Fatal("nothing is emitted")
	}
	if first := p.rollups[0].Trigger; !first.After(before) || first.Offset > before.Offset+200 {
		t.Errorf("the first trigger is %+v, after %+v", first, before)
	}
	for _, r := range p.rollups {
		if !r.Trigger.After(before) {
			t.Fatalf("%+v is not after %+v, and readers drop it", r.Trigger, before)
		}
	}
	if reached, err := mustCommit(t, p.engine).Reached(); err != nil || reached.Incarnation != firstLife+60e6 {
		t.Errorf("the commit is of %+v, %v", reached, err)
	}
}

// If a catalogue cannot be found, no frame is folded without it.
func TestUnknownCatalogue(t *testing.T) {
	gone := fmt.Errorf("%w: gone", ErrCatalogue)
	known := oona.CatalogueHash{1}
	catalogues := func(hash oona.CatalogueHash) (Catalogue, error) {
		if hash == known {
			return testCatalogue, nil
		}
		return nil, gone
	}
	missing := func(err error) bool {
		return errors.Is(err, ErrCatalogue) && errors.Is(err, gone) && !errors.Is(err, ErrCommit)
	}
	if _, err := New(DefaultConfig(), catalogues); !missing(err) {
		t.Errorf("New: %v", err)
	}
	cfg := withConfig(func(c *Config) { c.Catalogue = known })
	e, err := New(cfg, catalogues)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Prepare(&Configuration{Config: DefaultConfig()}); !missing(err) {
		t.Errorf("Prepare: %v", err)
	}
	if err := e.Prepare(&Configuration{Config: cfg}); err != nil {
		t.Errorf("Prepare of a known one: %v", err)
	}
	commit := mustCommit(t, e)
	if _, err := Resume(cfg, func(oona.CatalogueHash) (Catalogue, error) { return nil, gone }, commit); !missing(err) {
		t.Errorf("Resume: %v", err)
	}
	if _, err := Restart(cfg, func(oona.CatalogueHash) (Catalogue, error) { return nil, gone }, commit, 0, 0); !missing(err) {
		t.Errorf("Restart: %v", err)
	}
	if _, err := Resume(DefaultConfig(), catalogues, commit); err != nil {
		t.Errorf("Resume with the catalogue: %v", err)
	}
}

// Each window is folded with the catalogue of its own configuration.
func TestWindowsHaveTheCatalogueOfTheirConfiguration(t *testing.T) {
	other := oona.CatalogueHash{2}
	asked := map[oona.CatalogueHash]int{}
	catalogues := func(hash oona.CatalogueHash) (Catalogue, error) {
		asked[hash]++
		group := oona.Health
		if hash == other {
			group = oona.Performance
		}
		return func(name string) oona.Metric { return oona.Metric{Name: name, Group: group} }, nil
	}
	e, err := New(DefaultConfig(), catalogues)
	if err != nil {
		t.Fatal(err)
	}
	p := &partition{t: t, engine: e}
	measured := func(at float64) sample {
		return sample{observed: at, metrics: []oona.Column{{Name: "m", Values: []float32{1}}}}
	}
	p.folded(p.append(0, measured(0)))
	p.must(Passed, ReasonConfigured, p.configure(1, 100, generation(1, func(c *Config) { c.Catalogue = other })))
	for s := range 20 {
		p.append(float64(10*s+2), measured(float64(10*s+2)))
	}
	groups := map[oona.CatalogueHash]map[oona.Group]bool{{}: {}, other: {}}
	for _, r := range p.rollups {
		if len(r.Metrics) > 0 {
			groups[r.Catalogue][r.Group] = true
		}
	}
	if len(groups) != 2 || len(groups[oona.CatalogueHash{}]) != 1 || !groups[oona.CatalogueHash{}][oona.Health] || len(groups[other]) != 1 || !groups[other][oona.Performance] {
		t.Errorf("groups by catalogue: %v", groups)
	}
	if asked[other] != 1 {
		t.Errorf("the catalogue was asked for %d times, want once", asked[other])
	}
}

// Commits of version 3 stay readable.
func TestCommitsOfVersionThreeStayReadable(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.Catalogue = oona.CatalogueHash{9, 8, 7, 6, 5, 4, 3, 2} }))
	p.must(Passed, ReasonBegun, p.begin(0, firstLife))
	p.must(Passed, ReasonConfigured, p.configure(0, 0, generation(1, func(c *Config) { c.Catalogue = oona.FirstCatalogue })))
	p.folded(p.append(1, sample{observed: 1}))
	p.must(Passed, ReasonConfigured, p.configure(2, 100, generation(2, func(c *Config) { c.Length = 20 * time.Second })))
	c := mustCommit(t, p.engine)
	path := filepath.Join("testdata", "commits-3.txt")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(want)); got != c.Metadata {
		t.Errorf("the commit is\n%s, and was\n%s", c.Metadata, got)
	}
	e, err := Resume(DefaultConfig(), testCatalogues, c)
	if err != nil {
		t.Fatal(err)
	}
	if all := e.Configurations(); len(all) != 2 || all[0].Config.Catalogue != oona.FirstCatalogue || all[1].Config.Catalogue != (oona.CatalogueHash{}) {
		t.Errorf("the configurations are %+v", all)
	}
}
