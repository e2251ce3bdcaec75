package windows

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// configure appends a configuration record.
func (p *partition) configure(at float64, from float64, next Config) Outcome {
	return p.fold(at, Record{Configuration: &Configuration{next, instant(from)}})
}

// generation returns the default configuration with a generation and a change.
func generation(n int32, change func(*Config)) Config {
	return withConfig(func(c *Config) {
		c.Generation = n
		change(c)
	})
}

func longer(c *Config) { c.Length = 25 * time.Second }

func TestConfigurationRecords(t *testing.T) {
	for _, c := range []struct {
		name string
		from float64
		next Config
		want Reason
	}{
		{"ahead of all frames", 160.000001, generation(2, longer), ReasonConfigured},
		{"where a frame may have been folded", 160, generation(2, longer), ReasonVoid},
		{"of the generation in force", 300, generation(1, longer), ReasonVoid},
		{"of no length", 300, generation(2, func(c *Config) { c.Length = 0 }), ReasonVoid},
		{"of another tick interval", 300, generation(2, func(c *Config) { c.TickInterval += time.Microsecond }), ReasonConfigured},
		{"of another idle horizon", 300, generation(2, func(c *Config) { c.IdleHorizon *= 2 }), ReasonConfigured},
		{"of another reducer", 300, generation(2, func(c *Config) { c.Reducer++ }), ReasonConfigured},
		{"of an unknown reducer", 300, generation(2, func(c *Config) { c.Reducer = Reducer + 1 }), ReasonVoid},
		{"of no reducer", 300, generation(2, func(c *Config) { c.Reducer = 0 }), ReasonVoid},
		{"of other slots", 300, generation(2, func(c *Config) { c.FrontierSlots++ }), ReasonVoid},
		{"of other caps", 300, generation(9, func(c *Config) {
			c.MaxTimelines, c.MaxAccumulators, c.MaxLayers = 1, 100, 3
			c.MaxTimelineAccumulators = 3
		}), ReasonConfigured},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPartition(t, generation(1, func(*Config) {}))
			p.tick(100)
			p.tick(40) // append times have stepped back, but the greatest one counts
			o := p.configure(40, c.from, c.next)
			p.must(Passed, c.want, o)
			if o.Detail == "" {
				t.Error("the outcome has no detail")
			}
			want := p.engine.configEpochs[0].cfg
			if c.want == ReasonConfigured {
				want = c.next
			}
			if got := p.engine.Config(); got != want {
				t.Errorf("the configuration is %+v, want %+v", got, want)
			}
		})
	}
}

// A configuration that is the first record of a log applies to the whole log, and to the log clock. The
// same record again is void.
func TestFirstConfiguration(t *testing.T) {
	next := generation(1, func(c *Config) {
		c.Length, c.IdleHorizon, c.TickInterval = 30*time.Second, 200*time.Second, 5*time.Second
	})
	p := newPartition(t, DefaultConfig())
	p.must(Passed, ReasonConfigured, p.configure(0, 1e6, next))
	p.must(Passed, ReasonVoid, p.configure(0, 1e6, next))
	p.folded(p.append(0, sample{observed: 1}))
	p.folded(p.append(60, sample{observed: 60}))
	if r := p.rollups; len(r) != 2 || r[0].End-r[0].Start != 30e6 || r[0].Generation != 1 {
		t.Errorf("the first window is %+v, want one of 30 s and generation 1", r)
	}
}

// The new windows begin where the last old window ends. No window is cut, and each has its own
// configuration.
func TestWindowsAtASeam(t *testing.T) {
	p := newPartition(t, generation(1, func(c *Config) { c.AllowedLateness = 5 * time.Second }))
	p.folded(p.append(0, sample{observed: 1}))
	p.must(Passed, ReasonConfigured, p.configure(1, 61.5, generation(2, func(c *Config) { c.Length, c.AllowedLateness = 25*time.Second, 0 })))
	for s := 2; s <= 130; s++ {
		p.folded(p.append(float64(s), sample{observed: float64(s)}))
	}
	var got [][3]int64
	for _, r := range p.rollups {
		if r.Group == oona.Health {
			got = append(got, [3]int64{int64(r.Start-origin) / 1e6, int64(r.End-origin) / 1e6, int64(r.Generation)})
		}
	}
	want := [][3]int64{{0, 10, 1}, {10, 20, 1}, {20, 30, 1}, {30, 40, 1}, {40, 50, 1}, {50, 60, 1}, {60, 70, 1}, {70, 95, 2}, {95, 120, 2}}
	if len(got) != len(want) {
		t.Fatalf("the windows are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("window %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// A window without allowed lateness closes before an earlier window with much allowed lateness.
func TestLaterWindowClosesFirst(t *testing.T) {
	p := newPartition(t, generation(1, func(c *Config) { c.AllowedLateness = 100 * time.Second }))
	p.must(Passed, ReasonConfigured, p.configure(0, 1e6, generation(2, func(c *Config) { c.AllowedLateness = 100 * time.Second })))
	p.must(Passed, ReasonConfigured, p.configure(0, 61, generation(3, func(c *Config) { c.AllowedLateness = 0 })))
	p.folded(p.append(69, sample{observed: 69}))
	p.folded(p.append(71, sample{observed: 71}))
	p.folded(p.append(81, sample{observed: 81}))
	p.wantClosed("run//layer@70")
	p.must(Late, ReasonLate, p.append(81, sample{observed: 79}))
	p.folded(p.append(81, sample{observed: 68}))
	p.folded(p.append(171, sample{observed: 171}))
	p.wantClosed("run//layer@60", "run//layer@80")
}

// A configuration expires when no acceptable frame can belong to it any more. If append times then
// step back, frames of its time are stale. This is also so after a resume, wherever the replay
// begins.
func TestRetiredConfiguration(t *testing.T) {
	brief := func(c *Config) { c.MaxDelay, c.Length = 100*time.Second, 10*time.Second }
	p := newPartition(t, generation(1, brief))
	var log []Record
	p.tick(0)
	log = append(log, Record{})
	step := func(at float64, r Record) Outcome {
		r.Offset, r.AppendedAt = p.offset, instant(at)
		log = append(log, r)
		return p.fold(at, r)
	}
	old := func() Record { return sample{observed: 5, sequence: 1}.record(0) }
	p.folded(step(0, old()))
	p.must(Passed, ReasonConfigured, step(1, Record{Configuration: &Configuration{generation(2, brief), instant(62)}}))
	for s := 2; s <= 90; s++ {
		step(float64(s), Record{})
	}
	holds := sample{run: "other", observed: 85, sequence: 2}.record(0)
	p.folded(step(90, holds)) // an open window: a replay begins here
	p.must(Duplicate, ReasonDuplicate, step(90, holds))
	late := sample{run: "new", observed: 5, sequence: 3}.record(0)
	p.folded(step(91, late)) // it belongs to the first configuration
	for s := 92; s <= 172; s++ {
		step(float64(s), sample{run: "other", observed: 86, sequence: int64(s)}.record(0))
	}
	// This frame holds back the watermark. Its configuration will expire while the frontier still
	// depends on the frame.
	p.must(Late, ReasonLate, step(165, sample{run: "other", producer: "slow", observed: 65, sequence: 4}.record(0)))
	if got := len(p.engine.configEpochs); got != 2 || p.engine.configEpochs[0].expired != never {
		t.Fatalf("%d configurations are known, the first retired at %d", got, p.engine.configEpochs[0].expired)
	}
	step(231, Record{}) // later than the end of the first configuration + MaxDelay + MaxSkew = 70 + 100 + 60
	if p.engine.configEpochs[0].expired != p.offset-1 {
		t.Fatalf("the first is retired at %d, want %d", p.engine.configEpochs[0].expired, p.offset-1)
	}
	commit := mustCommit(t, p.engine)
	p.must(Quarantined, ReasonStale, step(20, late))
	p.folded(step(231, sample{run: "other", observed: 230, sequence: 5}.record(0)))
	if got := p.engine.Stats().OldestEnd; got != instant(90) {
		t.Fatalf("the oldest open window ends at %d: the slow producer does not hold the watermark", got)
	}

	e, err := Resume(DefaultConfig(), testCatalogues, commit)
	if err != nil {
		t.Fatal(err)
	}
	var o Outcome
	for _, r := range log {
		if r.Offset < commit.Offset {
			continue
		}
		if got := e.Fold(r, func(r *oona.Rollup) {}); r.Offset == p.offset-2 {
			o = got
		}
	}
	if o.Verdict != Quarantined || o.Reason != ReasonStale {
		t.Errorf("after a resume the frame is %+v, want it quarantined as stale", o)
	}
	if got, want := mustCommit(t, e), mustCommit(t, p.engine); got != want {
		t.Errorf("after a resume the commit is %+v, want %+v", got, want)
	}
	if got := e.OpenWindows(); got != p.engine.OpenWindows() || got == 0 {
		t.Errorf("after a resume %d windows are open, want %d", got, p.engine.OpenWindows())
	}
}

// A record has every field of a configuration. If one were missing, it would have another value after
// decoding.
func TestConfigurationsAreRecords(t *testing.T) {
	c := Configuration{Config: DefaultConfig(), From: instant(100)}
	c.Config.Generation = 3
	v := reflect.ValueOf(&c.Config).Elem()
	for i := range v.NumField() {
		if d, ok := v.Field(i).Interface().(time.Duration); ok {
			v.Field(i).SetInt(int64(d + time.Duration(i)*time.Microsecond))
			continue
		}
		if v.Field(i).CanInt() {
			v.Field(i).SetInt(v.Field(i).Int() + int64(i))
		}
	}
	c.Config.Reducer, c.Config.Catalogue = Reducer, oona.CatalogueHash{1, 2, 3}
	r := c.Record()
	if again, err := ConfigurationOf(&r); err != nil || again != c {
		t.Errorf("read back it is %+v, %v; want %+v", again, err, c)
	}
	for _, wrong := range []func(*oona.WindowConfiguration){
		func(r *oona.WindowConfiguration) { r.Generation = 0 },
		func(r *oona.WindowConfiguration) { r.MaxDelay = 1 << 62 },
		func(r *oona.WindowConfiguration) { r.Length = 0 },
		func(r *oona.WindowConfiguration) { r.Reducer = 0 },
		func(r *oona.WindowConfiguration) { r.IdleHorizon = r.TickInterval },
		func(r *oona.WindowConfiguration) { r.Kind = oona.Session },
		func(r *oona.WindowConfiguration) { r.Hop = 1 },
	} {
		bad := r
		wrong(&bad)
		if got, err := ConfigurationOf(&bad); err == nil {
			t.Errorf("%+v is taken for %+v", bad, got)
		}
	}
}

// If a record or a commit needs a later version of the reducers, the error says so, whatever else is
// wrong with it.
func TestLaterReducers(t *testing.T) {
	r := Configuration{Config: generation(2, longer), From: instant(100)}.Record()
	r.Reducer, r.MaxDelay = Reducer+1, -1
	if _, err := ConfigurationOf(&r); !errors.Is(err, ErrReducer) {
		t.Errorf("the record: %v", err)
	}
	p := newPartition(t, DefaultConfig())
	p.tick(0)
	s := p.engine.snapshot()
	before := s.text()
	later := *s.configEpochs[0]
	later.cfg.Reducer = Reducer + 1
	s.configEpochs = configEpochs{&later}
	if _, err := Resume(DefaultConfig(), testCatalogues, Commit{s.safe.Offset, s.text()}); !errors.Is(err, ErrReducer) || !errors.Is(err, ErrCommit) {
		t.Errorf("the commit: %v", err)
	}
	if _, err := Resume(DefaultConfig(), testCatalogues, Commit{s.safe.Offset, before}); err != nil {
		t.Errorf("the same commit of this version: %v", err)
	}
}

// Refuses agrees with what happens when the configuration is folded.
func TestRefusesWhatWouldBeVoid(t *testing.T) {
	for _, from := range []float64{159, 160, 160.000001, 300} {
		p := newPartition(t, generation(1, func(*Config) {}))
		p.tick(100)
		c := Configuration{generation(2, longer), instant(from)}
		refused := p.engine.Refuses(c, instant(100))
		o := p.configure(100, from, c.Config)
		if (refused != nil) != (o.Reason == ReasonVoid) {
			t.Errorf("from %g: refused with %v, and then %+v", from, refused, o)
		}
		if err := p.engine.Refuses(c, instant(100)); err == nil {
			t.Errorf("from %g: what is void, or made already, is not refused", from)
		}
	}
	first := newPartition(t, generation(0, func(*Config) {}))
	if err := first.engine.Refuses(Configuration{Config: generation(1, longer)}, instant(100)); err != nil {
		t.Errorf("as the first record of a log: %v", err)
	}
}
