package windows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

func TestSafeOffset(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	want := func(offset int64, because string) {
		t.Helper()
		c := mustCommit(t, p.engine)
		if c.Offset != offset {
			t.Fatalf("after offset %d it is safe to begin at %d, want %d: %s", p.offset-1, c.Offset, offset, because)
		}
	}
	want(0, "there is no record yet")
	p.tick(0)
	want(0, "a record within the horizon")
	p.folded(p.append(0, sample{observed: 1}))
	p.folded(p.append(0, sample{observed: 11})) // offset 2
	p.folded(p.append(0, sample{observed: 16, producer: "holds"}))
	p.wantClosed()
	want(0, "all of it is within the horizon")
	for s := 1; s <= 60; s++ { // offsets 4 to 63
		p.tick(float64(s))
	}
	want(0, "the horizon's oldest quarter began with the log")
	for s := 61; s <= 75; s++ {
		p.tick(float64(s))
	}
	p.wantClosed("run//layer@0", "run//layer@10")
	want(18, "the quarter that began at 15 s is the oldest, and no window is open")
	p.folded(p.append(75, sample{observed: 70})) // offset 79
	for s := 76; s <= 200; s++ {
		p.append(float64(s), sample{observed: 71, producer: "holds"})
	}
	want(79, "the window's first record: its watermark is held")
}

func TestCommitWhileReplaying(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 1}))
	p.folded(p.append(0, sample{observed: 2}))
	c := mustCommit(t, p.engine)
	e, err := Resume(DefaultConfig(), testCatalogues, c)
	if err != nil {
		t.Fatal(err)
	}
	for offset := range int64(2) {
		if got := mustCommit(t, e); got != c || !e.Replaying() || e.ProcessedTo() != offset {
			t.Fatalf("before offset %d the commit is %+v, replaying %t, processed to %d; want that which was resumed, true and the offset", offset, got, e.Replaying(), e.ProcessedTo())
		}
		r := sample{observed: float64(offset + 1)}.record(offset)
		r.Offset, r.AppendedAt = offset, instant(0)
		if o := e.Fold(r, nil); o != (Outcome{Verdict: Replayed}) {
			t.Fatalf("offset %d is %+v", offset, o)
		}
	}
	if got := mustCommit(t, e); got != c || e.Replaying() || e.ProcessedTo() != 2 || e.OpenWindows() != 1 {
		t.Errorf("when all is replayed: commit %+v, replaying %t, processed to %d, %d windows", got, e.Replaying(), e.ProcessedTo(), e.OpenWindows())
	}
}

// A resumed engine has the configuration of the commit, whatever the settings of the worker are.
func TestResumeKeepsTheConfiguration(t *testing.T) {
	made := withConfig(func(c *Config) { c.Length, c.Generation, c.MaxSeeds = c.Length*3, 7, 11 })
	e, err := New(made, testCatalogues)
	if err != nil {
		t.Fatal(err)
	}
	e, err = Resume(DefaultConfig(), testCatalogues, mustCommit(t, e))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Config(); got != made {
		t.Errorf("resumed with %+v, want %+v", got, made)
	}
}

// sealed gives content a checksum, as if Commit had written it.
func sealedText(offset int64, content []byte) string {
	return metadataCoding.EncodeToString(binary.BigEndian.AppendUint32(content, checksum(offset, content)))
}

func TestResumeRefuses(t *testing.T) {
	s := newSchedule(3)
	run := foldClean(t, s.cfg, s.make(scheduleRecords))
	good := run.commits[scheduleRecords/2]
	raw, err := metadataCoding.DecodeString(good.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	content := raw[:len(raw)-4]
	edit := func(change func([]byte) []byte) Commit {
		return Commit{good.Offset, sealedText(good.Offset, change(append([]byte(nil), content...)))}
	}
	cases := map[string]Commit{
		"nothing":           {Offset: good.Offset},
		"another offset":    {good.Offset + 1, good.Metadata},
		"a negative offset": {-1, sealedText(-1, content)},
		"no base64":         {good.Offset, "{}" + good.Metadata},
		"a line break":      {good.Offset, good.Metadata[:40] + "\n" + good.Metadata[40:]},
		"padding":           {good.Offset, good.Metadata + "="},
		"too long":          {good.Offset, strings.Repeat(good.Metadata, 50)},
		"a future version":  edit(func(b []byte) []byte { b[0] = 4; return b }),
		"version 0":         edit(func(b []byte) []byte { b[0] = 0; return b }),
		"cut off":           edit(func(b []byte) []byte { return b[:len(b)-1] }),
		"something behind":  edit(func(b []byte) []byte { return append(b, 0) }),
		"only a version":    edit(func(b []byte) []byte { return b[:1] }),
	}
	for i := range good.Metadata {
		b := []byte(good.Metadata)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		cases[fmt.Sprintf("another letter at %d", i)] = Commit{good.Offset, string(b)}
		cases[fmt.Sprintf("%d letters", i)] = Commit{good.Offset, good.Metadata[:i]}
	}
	for name, c := range cases {
		if _, err := Resume(run.cfg, testCatalogues, c); !errors.Is(err, ErrCommit) {
			t.Errorf("%s: the error is %v, want ErrCommit", name, err)
		}
	}
	for name, change := range map[string]func(*snapshot){
		"a wrong configuration": func(s *snapshot) { s.configEpochs[0].cfg.Length = 0 },
		"no configuration":      func(s *snapshot) { s.configEpochs = nil },
		"only a retired one":    func(s *snapshot) { s.configEpochs = s.configEpochs[:1]; s.configEpochs[0].expired = s.safe.Offset },
		"one twice":             func(s *snapshot) { s.configEpochs = append(s.configEpochs, s.configEpochs[0]) },
		"a timeline twice":      func(s *snapshot) { s.timelines = append(s.timelines, s.timelines[len(s.timelines)-1]) },
		"an admission to come":  func(s *snapshot) { s.timelines[0].admitted = s.processedTo + 1 },
		"an empty seal": func(s *snapshot) {
			s.timelines[0].seals = seals{{configEpoch: s.configEpochs[0], start: s.configEpochs[0].firstOpen(s.timelines[0].watermark), end: s.configEpochs[0].firstOpen(s.timelines[0].watermark)}}
		},
	} {
		s, err := parseSnapshot(good)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.timelines {
			s.timelines[i].seals = nil
		}
		change(s)
		if _, err := Resume(run.cfg, testCatalogues, Commit{good.Offset, s.text()}); !errors.Is(err, ErrCommit) {
			t.Errorf("%s: the error is %v, want ErrCommit", name, err)
		}
	}
	if _, err := Resume(run.cfg, testCatalogues, good); err != nil {
		t.Errorf("untouched: %v", err)
	}
	var field *oona.FieldError
	if _, err := Resume(Config{}, testCatalogues, good); !errors.As(err, &field) || errors.Is(err, ErrCommit) {
		t.Errorf("with a wrong configuration the error is %v, want a FieldError alone", err)
	}
}

// TestGoldenCommit compares the commits of a fixed log with those in a file. It also reads the files
// with commits of old versions, which must stay readable.
func TestGoldenCommit(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxAccumulators, cfg.MaxTimelineAccumulators, cfg.Generation = 12, 7, 3
	log := goldenLog()
	run := foldClean(t, cfg, log)
	var b strings.Builder
	for _, at := range []int{0, 1, 700, 1500, len(log)} {
		fmt.Fprintf(&b, "%d %d %s\n", at, run.commits[at].Offset, run.commits[at].Metadata)
	}
	path := filepath.Join("testdata", "commits-1.txt")
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
	lines := strings.Split(strings.TrimSpace(string(want)), "\n")
	for _, line := range lines {
		var at int
		var c Commit
		if n, _ := fmt.Sscan(line, &at, &c.Offset, &c.Metadata); n != 3 {
			t.Fatalf("%q is not a commit", line)
		}
		if _, err := run.resume(t, at, len(log), c); err != nil {
			t.Errorf("resumed before record %d: %v", at, err)
		}
	}
	if !run.sealedAnywhere(t) {
		t.Error("no window of the log is ever sealed")
	}
}

// sealedAnywhere reports whether any commit has a seal.
func (c *clean) sealedAnywhere(t *testing.T) bool {
	t.Helper()
	for _, commit := range c.commits {
		s, err := parseSnapshot(commit)
		if err != nil {
			t.Fatal(err)
		}
		if s.sealCount() > 0 {
			return true
		}
	}
	return false
}

// FuzzResume resumes from arbitrary texts in two ways. As metadata, only a text from Commit may be
// accepted. As content with a valid checksum, no text may cause a panic, and a text that is
// accepted must equal the one that Commit writes.
func FuzzResume(f *testing.F) {
	written := map[Commit]bool{}
	for seed := range uint64(5) {
		s := newSchedule(seed)
		e, err := New(s.cfg, testCatalogues)
		if err != nil {
			f.Fatal(err)
		}
		for i, r := range s.make(scheduleRecords) {
			if i%100 == 0 {
				c, err := e.Commit()
				if err != nil {
					f.Fatal(err)
				}
				raw, err := metadataCoding.DecodeString(c.Metadata)
				if err != nil {
					f.Fatal(err)
				}
				written[c] = true
				f.Add(c.Offset, []byte(c.Metadata))
				f.Add(c.Offset, raw[:len(raw)-4])
			}
			e.Fold(r, func(*oona.Rollup) {})
		}
	}
	for _, c := range lostCommits(f) {
		raw, err := metadataCoding.DecodeString(c.Metadata)
		if err != nil {
			f.Fatal(err)
		}
		written[c] = true
		f.Add(c.Offset, []byte(c.Metadata))
		f.Add(c.Offset, raw[:len(raw)-4])
	}
	cfg := DefaultConfig()
	f.Fuzz(func(t *testing.T, offset int64, data []byte) {
		c := Commit{offset, string(data)}
		switch _, err := Resume(cfg, testCatalogues, c); {
		case err == nil && !written[c]:
			t.Errorf("%+v is accepted", c)
		case err != nil && !errors.Is(err, ErrCommit):
			t.Errorf("the error is %v", err)
		}
		c.Metadata = sealedText(offset, append([]byte(nil), data...))
		e, err := Resume(cfg, testCatalogues, c)
		if err != nil {
			if !errors.Is(err, ErrCommit) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if got, err := e.Commit(); got != c && e.Replaying() || err != nil {
			t.Errorf("%+v comes back as %+v (%v)", c, got, err)
		}
		e.Stats()
		at := e.maxAppendedAt
		for i := range int64(20) {
			r := sample{run: fmt.Sprint(i % 3), observed: float64(i)}.record(i)
			r.Offset, r.AppendedAt = e.ProcessedTo(), at
			r.Frame.ObservedAt = at - oona.Micros(i)
			e.Fold(r, func(*oona.Rollup) {})
			at += 1_000_000
		}
		if _, err := e.Commit(); err != nil && !errors.Is(err, ErrMetadata) {
			t.Error(err)
		}
	})
}

// NeededSince returns the append time of the record before the oldest open window, or before the idle
// horizon if no window is older.
func TestNeededSince(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.IdleHorizon = 20 * time.Second }))
	if at, known := p.engine.NeededSince(); known {
		t.Errorf("before the first record it is %d", at)
	}
	p.append(0, sample{observed: 0})
	p.tick(5)
	p.append(50, sample{run: "slow", observed: 50})
	for at := 51.0; at <= 300; at++ {
		p.append(at, sample{run: "slow", observed: 50 + (at-50)/100, sequence: int64(at) * 1000})
		p.append(at, sample{observed: at})
	}
	if at, known := p.engine.NeededSince(); !known || at != instant(5) {
		t.Errorf("while a window is open since 50 s it is %f (%t), want the record before", float64(at-origin)/1e6, known)
	}
	resumed, err := Resume(DefaultConfig(), testCatalogues, mustCommit(t, p.engine))
	if err != nil {
		t.Fatal(err)
	}
	if at, known := resumed.NeededSince(); !known || at != instant(5) {
		t.Errorf("of an engine that was resumed it is %f (%t)", float64(at-origin)/1e6, known)
	}
	for at := 301.0; at <= 400; at++ {
		p.append(at, sample{observed: at})
	}
	if at, _ := p.engine.NeededSince(); at < instant(360) || at > instant(395) {
		t.Errorf("once it has closed it is %f", float64(at-origin)/1e6)
	}
}
