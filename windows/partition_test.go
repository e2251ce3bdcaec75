package windows

import (
	"errors"
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// partition is a log under test, and everything that its engine has emitted. Times are in seconds
// after an instant at which a window of 10 s begins.
type partition struct {
	t       *testing.T
	engine  *Engine
	offset  int64
	rollups []oona.Rollup
}

const origin oona.Micros = 1_700_000_000_000_000

func instant(seconds float64) oona.Micros { return origin + oona.Micros(seconds*1e6) }

func newPartition(t *testing.T, cfg Config) *partition {
	t.Helper()
	e, err := New(cfg, testCatalogues)
	if err != nil {
		t.Fatal(err)
	}
	return &partition{t: t, engine: e}
}

// sample is a frame of a test. Fields that are not set have defaults.
type sample struct {
	run, timeline, layer, producer, path string
	epoch                                oona.Micros
	sequence                             int64 // 0: the offset, so that it is unique
	observed                             float64
	step                                 int64
	seeds                                []oona.SeedID
	states                               []oona.State
	metrics                              []oona.Column
}

func (s sample) record(offset int64) Record {
	or := func(a, b string) string {
		if a == "" {
			return b
		}
		return a
	}
	f := &oona.Frame{
		Run: oona.RunID(or(s.run, "run")), Timeline: oona.TimelineID(s.timeline), Layer: oona.LayerID(or(s.layer, "layer")),
		Producer: oona.ProducerID(or(s.producer, "trainer")), Epoch: s.epoch, Sequence: s.sequence, ObservedAt: instant(s.observed), Step: s.step,
		Seeds: s.seeds, States: s.states, Metrics: s.metrics,
	}
	if f.Sequence == 0 {
		f.Sequence = offset + 1000
	}
	if len(f.Seeds) == 0 {
		f.Seeds = []oona.SeedID{1}
	}
	for len(f.States) < len(f.Seeds) {
		f.States = append(f.States, oona.Training)
	}
	sum := fnv.New64()
	fmt.Fprintf(sum, "%v", *f)
	return Record{Path: or(s.path, "in0"), Checksum: sum.Sum64(), Frame: f}
}

// append appends a frame to the log at a time.
func (p *partition) append(at float64, s sample) Outcome { return p.fold(at, s.record(p.offset)) }

// tick appends a record without a frame.
func (p *partition) tick(at float64) {
	if o := p.fold(at, Record{}); o != (Outcome{Verdict: Passed}) {
		p.t.Helper()
		p.t.Fatalf("a record without a frame is %+v", o)
	}
}

func (p *partition) fold(at float64, r Record) Outcome {
	r.Offset, r.AppendedAt = p.offset, instant(at)
	p.offset++
	return p.engine.Fold(r, func(r *oona.Rollup) { p.rollups = append(p.rollups, copyRollup(r)) })
}

// must fails the test if the outcome is another one.
func (p *partition) must(verdict Verdict, reason Reason, o Outcome) {
	p.t.Helper()
	if o.Verdict != verdict || o.Reason != reason {
		p.t.Fatalf("offset %d is %s (%s: %s), want %s (%s)", p.offset-1, o.Verdict, o.Reason, o.Detail, verdict, reason)
	}
}

func (p *partition) folded(o Outcome) { p.t.Helper(); p.must(Folded, ReasonNone, o) }

// closed lists the windows of health rollups as "run/timeline/layer@start", in
// the order of emission, and forgets them.
func (p *partition) closed() []string {
	var list []string
	for _, r := range p.rollups {
		if r.Group == oona.Health {
			list = append(list, fmt.Sprintf("%s/%s/%s@%d", r.Run, r.Timeline, r.Layer, (r.Start-origin)/1e6))
		}
	}
	p.rollups = nil
	return list
}

func (p *partition) wantClosed(want ...string) {
	p.t.Helper()
	if got := p.closed(); fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Fatalf("after offset %d these have closed: %v, want %v", p.offset-1, got, want)
	}
}

// withConfig returns the default configuration with a change.
func withConfig(change func(*Config)) Config {
	cfg := DefaultConfig()
	change(&cfg)
	return cfg
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	for _, c := range []struct {
		field  string
		change func(*Config)
	}{
		{"Length", func(c *Config) { c.Length = 0 }},
		{"OutOfOrderness", func(c *Config) { c.OutOfOrderness = -time.Second }},
		{"AllowedLateness", func(c *Config) { c.AllowedLateness = 1500 * time.Nanosecond }},
		{"TickInterval", func(c *Config) { c.TickInterval = 0 }},
		{"IdleHorizon", func(c *Config) { c.IdleHorizon = 2 * c.TickInterval }},
		{"MaxSkew", func(c *Config) { c.MaxSkew = -1 }},
		{"MaxDelay", func(c *Config) { c.MaxDelay = -time.Hour }},
		{"MaxTimelines", func(c *Config) { c.MaxTimelines = 0 }},
		{"MaxAccumulators", func(c *Config) { c.MaxAccumulators = 0 }},
		{"MaxTimelineAccumulators", func(c *Config) { c.MaxTimelineAccumulators = -1 }},
		{"MaxLayers", func(c *Config) { c.MaxLayers = 0 }},
		{"MaxMetrics", func(c *Config) { c.MaxMetrics = -1 }},
		{"MaxSeeds", func(c *Config) { c.MaxSeeds = 1 << 31 }},
		{"MaxSeeds", func(c *Config) { c.MaxSeeds = 0 }},
		{"FrontierSlots", func(c *Config) { c.FrontierSlots = 0 }},
		{"WorstSeeds", func(c *Config) { c.WorstSeeds = -1 }},
		{"Generation", func(c *Config) { c.Generation = -1 }},
	} {
		cfg := withConfig(c.change)
		_, err := New(cfg, testCatalogues)
		if wrong := (*oona.FieldError)(nil); !errors.As(err, &wrong) || wrong.Field != c.field {
			t.Errorf("%s is wrong, but the error is %v", c.field, err)
		}
	}
}
