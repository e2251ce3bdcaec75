package whatif

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

func about(name string) oona.Metric {
	switch name {
	case "loss":
		return oona.Metric{Name: name, Group: oona.Health, Direction: oona.LowerIsBetter}
	case "gain":
		return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.HigherIsBetter}
	}
	return oona.Metric{Name: name, Group: oona.Health, Direction: oona.Neutral}
}

// randomLog returns records of two runs, each with two producers, some of them late, twice,
// with other bytes, or after a gap.
func randomLog(random *rand.Rand, n int) (log []windows.Record) {
	base := oona.MicrosOf(time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC))
	clock, appended := base, base
	var sequence int64
	for len(log) < n {
		offset := int64(len(log) + random.IntN(2)*len(log)/1_000)
		appended += oona.Micros(random.Int64N(900_000))
		clock += oona.Micros(random.Int64N(700_000))
		switch kind := random.IntN(100); {
		case kind < 4:
			log = append(log, windows.Record{Offset: offset, AppendedAt: appended})
			continue
		case kind < 6: // a gap
			appended += oona.Micros(random.Int64N(90_000_000))
			clock = appended
		case kind < 12 && len(log) > 20:
			again := log[len(log)-1-random.IntN(20)]
			again.Offset, again.AppendedAt = offset, appended
			if again.Frame != nil && random.IntN(4) == 0 {
				again.Checksum++
			}
			log = append(log, again)
			continue
		}
		sequence++
		f := randomFrame(random, clock, sequence)
		log = append(log, windows.Record{Offset: offset, AppendedAt: appended, Path: fmt.Sprint(random.IntN(2)), Checksum: random.Uint64(), Frame: f})
	}
	for i := range log {
		log[i].Offset = int64(2 * i)
	}
	return log
}

func randomFrame(random *rand.Rand, clock oona.Micros, sequence int64) *oona.Frame {
	at := clock - oona.Micros(random.Int64N(2_000_000))
	switch random.IntN(40) {
	case 0:
		at -= oona.Micros(random.Int64N(60_000_000)) // perhaps late
	case 1:
		at -= at % oona.Micros(time.Second.Microseconds()) // at a bound
	}
	run := random.IntN(2)
	f := &oona.Frame{
		Run: oona.RunID(fmt.Sprint("run.", run)), Layer: oona.LayerID(fmt.Sprint("layer.", random.IntN(3))), Producer: oona.ProducerID(fmt.Sprint("rank.", random.IntN(2))),
		Epoch: oona.Micros(1 + random.IntN(2)), Sequence: sequence, ObservedAt: at, Step: sequence/3 + random.Int64N(3),
	}
	for id := range oona.SeedID(1 + random.IntN(12)) {
		f.Seeds = append(f.Seeds, id)
		f.States = append(f.States, oona.State(random.IntN(oona.StateCount)))
	}
	for _, name := range []string{"loss", "gain", "norm"}[random.IntN(2):] {
		c := oona.Column{Name: name}
		for range f.Seeds {
			v := float32(random.NormFloat64())
			switch random.IntN(12) {
			case 0:
				v = float32(math.NaN())
			case 1:
				v = float32(math.Round(float64(v))) // often equal
			}
			c.Values = append(c.Values, v)
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

func testConfig(random *rand.Rand) windows.Config {
	c := windows.DefaultConfig()
	c.Length = time.Duration(1+random.IntN(20)) * time.Second
	c.AllowedLateness = time.Duration(random.IntN(10)) * time.Second
	c.OutOfOrderness = time.Duration(random.IntN(2000)) * time.Millisecond
	c.IdleHorizon = time.Duration(3+random.IntN(30)) * time.Second
	c.MaxDelay = time.Duration(20+random.IntN(60)) * time.Second
	c.Reducer = 2
	return c
}

// If the hop equals the length, windows and all outcomes are those of windows.Engine.
func TestHopOfTheLength(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 3))
		c := testConfig(random)
		own, err := NewEngine(Settings{Config: c, Kind: oona.Hopping, Hop: c.Length}, windows.Always(about))
		if err != nil {
			t.Fatal(err)
		}
		other, err := windows.New(c, windows.Always(about))
		if err != nil {
			t.Fatal(err)
		}
		rollups := 0
		for _, r := range randomLog(random, 600) {
			var want, got []oona.Rollup
			wanted := other.Fold(r, func(r *oona.Rollup) { want = append(want, deepCopy(r)) })
			outcome := own.Fold(r, func(r *oona.Rollup) {
				if r.Kind != oona.Hopping || r.Hop != oona.Micros(c.Length.Microseconds()) || r.Hash != r.ContentHash() {
					t.Fatalf("rollup %+v", r)
				}
				r.Kind, r.Hop = 0, 0
				r.Hash = r.ContentHash()
				got = append(got, deepCopy(r))
			})
			if outcome.Verdict != wanted.Verdict || outcome.Reason != wanted.Reason && outcome.Verdict != windows.Passed {
				t.Fatalf("seed %d: offset %d is %s (%s), and by windows.Engine %s (%s)", seed, r.Offset, outcome.Verdict, outcome.Reason, wanted.Verdict, wanted.Reason)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) { // NaN is not in rollups
				t.Fatalf("seed %d: offset %d:\n%v\nwindows.Engine:\n%v", seed, r.Offset, got, want)
			}
			rollups += len(got)
		}
		if rollups == 0 {
			t.Errorf("seed %d: no rollups", seed)
		}
	}
}

func deepCopy(r *oona.Rollup) oona.Rollup {
	c := *r
	c.Metrics = nil
	for _, m := range r.Metrics {
		m.Worst = slices.Clone(m.Worst)
		for _, b := range []*oona.Buckets{&m.Histogram.Positive, &m.Histogram.Negative} {
			*b = oona.Buckets{Indexes: slices.Clone(b.Indexes), Counts: slices.Clone(b.Counts)}
		}
		c.Metrics = append(c.Metrics, m)
	}
	return c
}

// direct is an oracle in simple code: it keeps the records of each window, computes the watermark from
// all sightings each time, and lets windows/model compute the content of a window from its records.
type direct struct {
	s         Settings
	clock     int64 // the log clock
	appended  int64
	started   bool
	bucket    int64
	latest    int64
	timelines map[string]*directTimeline
	floor     int64
}

type directTimeline struct {
	key       string
	watermark int64
	seen      []sighting
	open      []*directWindow
	folded    map[string]sighted // by pane or session, and identity
}

// sighting records a frame of a slot: its bucket of the log clock, and its event time.
type sighting struct {
	slot, bucket, at int64
}

type sighted struct {
	checksum uint64
	at       int64
}

type directWindow struct {
	layer      oona.LayerID
	start, end int64
	records    []windows.Record
	duplicates int64
}

func (d *direct) micros(x time.Duration) int64 { return x.Microseconds() }
func (d *direct) lateness() int64              { return d.s.Config.AllowedLateness.Microseconds() }

// fold returns the verdict, and the windows that the record closes.
func (d *direct) fold(r windows.Record) (v windows.Verdict, closed []*directWindow) {
	width := (d.micros(d.s.Config.IdleHorizon) + 3) / 4
	tick := d.micros(d.s.Config.TickInterval)
	before, bucketBefore := d.clock/tick, d.bucket
	if now := int64(r.AppendedAt); d.started {
		d.clock += min(max(0, now-d.appended), 2*tick)
	}
	first := !d.started
	d.started, d.appended, d.latest = true, int64(r.AppendedAt), max(d.latest, int64(r.AppendedAt))
	d.bucket = d.clock / width
	if first || d.bucket != bucketBefore || d.clock/tick != before {
		for _, t := range d.timelines {
			closed = append(closed, d.raise(t)...)
		}
		for key, t := range d.timelines {
			if len(t.open) == 0 && len(d.active(t)) == 0 && t.watermark < d.latest-d.micros(d.s.Config.MaxDelay)-d.micros(d.s.Config.MaxSkew) {
				d.floor = max(d.floor, t.watermark)
				delete(d.timelines, key)
			}
		}
	}
	f := r.Frame
	if f == nil {
		return windows.Passed, closed
	}
	at := int64(f.ObservedAt)
	if at > int64(r.AppendedAt)+d.micros(d.s.Config.MaxSkew) || at < int64(r.AppendedAt)-d.micros(d.s.Config.MaxDelay) {
		return windows.Quarantined, closed
	}
	t := d.timelines[string(f.Run)]
	if t == nil {
		t = &directTimeline{key: string(f.Run), watermark: d.floor, folded: map[string]sighted{}}
		d.timelines[t.key] = t
	}
	if d.s.Kind == oona.Session {
		v = d.session(t, r)
	} else {
		v = d.hopping(t, r)
	}
	slot := int64(windows.SlotNumber(f.Producer, r.Path, d.s.Config.FrontierSlots))
	t.seen = append(t.seen, sighting{slot, d.bucket, at})
	return v, append(closed, d.raise(t)...)
}

// active returns the event time of each slot that was seen in the last five buckets.
func (d *direct) active(t *directTimeline) map[int64]int64 {
	of := map[int64]int64{}
	for _, s := range t.seen {
		if s.bucket < d.bucket-4 {
			continue
		}
		if reach, known := of[s.slot]; !known || s.at > reach {
			of[s.slot] = s.at
		}
	}
	return of
}

func (d *direct) raise(t *directTimeline) (closed []*directWindow) {
	to := int64(math.MinInt64)
	if of := d.active(t); len(of) > 0 {
		to = math.MaxInt64
		for _, reach := range of {
			to = min(to, reach-d.micros(d.s.Config.OutOfOrderness))
		}
	} else {
		for _, w := range t.open {
			to = max(to, w.end+d.lateness())
		}
	}
	t.watermark = max(t.watermark, to)
	t.open = slices.DeleteFunc(t.open, func(w *directWindow) bool {
		if w.end+d.lateness() > t.watermark {
			return false
		}
		closed = append(closed, w)
		return true
	})
	return closed
}

func (d *direct) hopping(t *directTimeline, r windows.Record) windows.Verdict {
	f, at, length, hop := r.Frame, int64(r.Frame.ObservedAt), d.micros(d.s.Config.Length), d.micros(d.s.Hop)
	stretch := at - at%hop
	if stretch+length+d.lateness() <= t.watermark {
		return windows.Late
	}
	id := fmt.Sprint(stretch, f.Producer, f.Epoch, f.Sequence)
	first, repeated := t.folded[id]
	if repeated && first.checksum != r.Checksum {
		return windows.Quarantined
	}
	t.folded[id] = sighted{r.Checksum, at}
	for start := stretch - length + hop; start <= stretch; start += hop {
		if start+length+d.lateness() <= t.watermark {
			continue
		}
		at := slices.IndexFunc(t.open, func(w *directWindow) bool { return w.layer == f.Layer && w.start == start })
		if at < 0 {
			at = len(t.open)
			t.open = append(t.open, &directWindow{layer: f.Layer, start: start, end: start + length})
		}
		if repeated {
			t.open[at].duplicates++
		} else {
			t.open[at].records = append(t.open[at].records, r)
		}
	}
	if repeated {
		return windows.Duplicate
	}
	return windows.Folded
}

func (d *direct) session(t *directTimeline, r windows.Record) windows.Verdict {
	f, at, gap := r.Frame, int64(r.Frame.ObservedAt), d.micros(d.s.Gap)
	var near []*directWindow
	for _, w := range t.open {
		if w.layer == f.Layer && slices.ContainsFunc(w.records, func(o windows.Record) bool {
			apart := int64(o.Frame.ObservedAt) - at
			return max(apart, -apart) < gap
		}) {
			near = append(near, w)
		}
	}
	if len(near) == 0 && at+gap+d.lateness() <= t.watermark {
		return windows.Late
	}
	for _, w := range near {
		for _, o := range w.records {
			if o.Frame.Producer == f.Producer && o.Frame.Epoch == f.Epoch && o.Frame.Sequence == f.Sequence {
				if o.Checksum != r.Checksum {
					return windows.Quarantined
				}
				w.duplicates++
				return windows.Duplicate
			}
		}
	}
	joined := &directWindow{layer: f.Layer, start: at, end: at + gap, records: []windows.Record{r}}
	for _, w := range near {
		joined.start, joined.end = min(joined.start, w.start), max(joined.end, w.end)
		joined.records, joined.duplicates = append(joined.records, w.records...), joined.duplicates+w.duplicates
	}
	slices.SortFunc(joined.records, func(a, b windows.Record) int { return cmp.Compare(a.Offset, b.Offset) })
	t.open = append(slices.DeleteFunc(t.open, func(w *directWindow) bool { return slices.Contains(near, w) }), joined)
	return windows.Folded
}

// compare compares the rollups of a window with those that the model computes from its records.
func (d *direct) compare(w *directWindow, got []oona.Rollup) error {
	c := d.s.Config
	c.Length = time.Duration(w.end-w.start) * time.Microsecond
	c.AllowedLateness, c.IdleHorizon, c.MaxDelay = 0, 1<<20*time.Hour/1000, 1<<20*time.Hour
	shift := oona.Micros(w.start % (w.end - w.start)) // the model's windows begin at multiples of the length
	m := model.New(c, about)
	once, err := windows.New(c, windows.Always(about)) // the same reducers, without merging
	if err != nil {
		return err
	}
	for _, r := range w.records {
		f := *r.Frame
		f.ObservedAt -= shift
		r.Frame, r.Path = &f, ""
		if a := m.Fold(r); a.Outcome.Verdict != windows.Folded {
			return fmt.Errorf("the model says %s", a.Outcome.Verdict)
		}
		once.Fold(r, func(*oona.Rollup) {})
	}
	var folded []oona.Rollup
	last := w.records[len(w.records)-1]
	end := *last.Frame
	end.ObservedAt, end.Sequence = oona.Micros(w.end)-shift+10_000_000_000, 1<<40
	var wanted []model.Rollup
	for _, producer := range []oona.ProducerID{"rank.0", "rank.1"} { // so that both are ahead
		end.Producer = producer
		last.Offset++
		last.AppendedAt = max(last.AppendedAt, end.ObservedAt)
		final := windows.Record{Offset: last.Offset, AppendedAt: last.AppendedAt, Frame: &end, Checksum: 1}
		wanted = append(wanted, m.Fold(final).Rollups...)
		once.Fold(final, func(r *oona.Rollup) { folded = append(folded, deepCopy(r)) })
	}
	if len(wanted) != len(got) {
		return fmt.Errorf("%d rollups, the model has %d", len(got), len(wanted))
	}
	for i := range wanted {
		want := &wanted[i]
		g := got[i]
		if g.Kind != d.s.Kind || g.Hop != oona.Micros(d.s.Hop.Microseconds()) || g.Hash != g.ContentHash() || g.Duplicates != w.duplicates {
			return fmt.Errorf("kind %s, hop %d, hash %x, duplicates %d, want %d", g.Kind, g.Hop, g.Hash, g.Duplicates, w.duplicates)
		}
		if g.Start != oona.Micros(w.start) || g.End != oona.Micros(w.end) {
			return fmt.Errorf("it is from %d to %d, want %d to %d", g.Start, g.End, w.start, w.end)
		}
		g.Start, g.End, g.Kind, g.Hop = g.Start-shift, g.End-shift, 0, 0
		g.Trigger, g.Watermark, g.Duplicates, g.Rates.Delay, g.Hash = want.Trigger, want.Watermark, want.Duplicates, want.Rates.Delay, want.Hash
		if err := want.Compare(&g); err != nil {
			return err
		}
		if err := sumsAgree(&g, &folded[i]); err != nil {
			return err
		}
	}
	return nil
}

// sumsAgree compares sums whose terms were added in another order.
func sumsAgree(got, want *oona.Rollup) error {
	const tolerance = 1e-12
	for i := range want.Metrics {
		g, w := &got.Metrics[i], &want.Metrics[i]
		size := math.Max(math.Abs(w.Min), math.Abs(w.Max))
		if math.Abs(g.Sum-w.Sum) > tolerance*size*float64(w.Count) || math.Abs(g.Mean-w.Mean) > tolerance*size || math.Abs(g.M2-w.M2) > tolerance*math.Max(w.M2, size*size) {
			return fmt.Errorf("%s: sum %g, mean %g, m2 %g; folded at once %g, %g, %g", w.Name, g.Sum, g.Mean, g.M2, w.Sum, w.Mean, w.M2)
		}
	}
	return nil
}

func testAgainstDirect(t *testing.T, settings func(*rand.Rand) Settings) {
	t.Helper()
	var seen [windows.VerdictCount]int
	checked := 0
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 4))
		s := settings(random)
		e, err := NewEngine(s, windows.Always(about))
		if err != nil {
			t.Fatal(err)
		}
		d := &direct{s: s, timelines: map[string]*directTimeline{}, floor: math.MinInt64}
		for _, r := range randomLog(random, 400) {
			emitted := map[string][]oona.Rollup{}
			outcome := e.Fold(r, func(r *oona.Rollup) {
				key := fmt.Sprint(r.Run, r.Layer, r.Start, r.End)
				emitted[key] = append(emitted[key], deepCopy(r))
			})
			verdict, closed := d.fold(r)
			if outcome.Verdict != verdict {
				t.Fatalf("seed %d: offset %d is %s (%s), and directly %s", seed, r.Offset, outcome.Verdict, outcome.Reason, verdict)
			}
			seen[verdict]++
			if len(closed) != len(emitted) {
				t.Fatalf("seed %d: offset %d closes %d windows, and directly %d", seed, r.Offset, len(emitted), len(closed))
			}
			for _, w := range closed {
				key := fmt.Sprint(w.records[0].Frame.Run, w.layer, w.start, w.end)
				if err := d.compare(w, emitted[key]); err != nil {
					t.Fatalf("seed %d: offset %d closes %s with %d frames: %v", seed, r.Offset, key, len(w.records), err)
				}
				checked++
			}
		}
	}
	for _, v := range []windows.Verdict{windows.Folded, windows.Duplicate, windows.Late, windows.Quarantined} {
		if seen[v] == 0 {
			t.Errorf("no frame was %s", v)
		}
	}
	t.Logf("%d windows, %v", checked, seen)
}

func TestHoppingAgainstDirect(t *testing.T) {
	testAgainstDirect(t, func(random *rand.Rand) Settings {
		c := testConfig(random)
		hop := time.Duration(1+random.IntN(4)) * time.Second
		c.Length = time.Duration(1+random.IntN(5)) * hop
		return Settings{Config: c, Kind: oona.Hopping, Hop: hop}
	})
}

func TestSessionsAgainstDirect(t *testing.T) {
	testAgainstDirect(t, func(random *rand.Rand) Settings {
		return Settings{Config: testConfig(random), Kind: oona.Session, Gap: time.Duration(500+random.IntN(4000)) * time.Millisecond}
	})
}

// fold folds frames of one producer, at seconds of event time, and returns the rollups of
// health.
func fold(t *testing.T, s Settings, layers []oona.LayerID, at ...float64) (verdicts []windows.Outcome, all []oona.Rollup, e *Engine) {
	t.Helper()
	e, err := NewEngine(s, windows.Always(about))
	if err != nil {
		t.Fatal(err)
	}
	for i, seconds := range at {
		f := randomFrame(rand.New(rand.NewPCG(1, 1)), 0, int64(i))
		f.Run, f.Layer, f.ObservedAt = "run", layers[i%len(layers)], oona.Micros(seconds*1e6)
		verdicts = append(verdicts, e.Fold(windows.Record{Offset: int64(i), AppendedAt: f.ObservedAt, Frame: f}, func(r *oona.Rollup) {
			if r.Group == oona.Health {
				all = append(all, deepCopy(r))
			}
		}))
	}
	return verdicts, all, e
}

// Two frames with a gap between them are in two sessions.
func TestGap(t *testing.T) {
	c := windows.DefaultConfig()
	c.Reducer, c.AllowedLateness, c.OutOfOrderness = 2, 0, 0
	_, all, _ := fold(t, Settings{Config: c, Kind: oona.Session, Gap: 5 * time.Second}, []oona.LayerID{"a"}, 10, 14.999999, 20, 25, 40)
	var got []string
	for _, r := range all {
		got = append(got, fmt.Sprint(r.Start, r.End, r.Frames))
	}
	if want := []string{"10000000 19999999 2", "20000000 25000000 1", "25000000 30000000 1"}; !slices.Equal(got, want) {
		t.Errorf("sessions are %q, want %q", got, want)
	}
}

// Frames beyond MaxAccumulators or MaxLayers overflow. When windows close, there is room again.
func TestLimits(t *testing.T) {
	for _, s := range []Settings{{Kind: oona.Session, Gap: time.Second}, {Kind: oona.Hopping, Hop: time.Second}} {
		s.Config = windows.DefaultConfig()
		s.Config.Reducer, s.Config.Length, s.Config.AllowedLateness, s.Config.OutOfOrderness = 2, 2*time.Second, 0, 0
		s.Config.MaxAccumulators = 2
		verdicts, _, e := fold(t, s, []oona.LayerID{"a", "b", "c"}, 10, 10, 10, 20, 20, 20)
		for i, o := range verdicts {
			// Frame 3 closes the windows of the first frames, but only after it was handled itself.
			if over := i == 2 || i == 3; over != (o.Verdict == windows.Overflowed && o.Reason == windows.ReasonSealed) {
				t.Errorf("%s: frame %d is %s (%s)", s.Kind, i, o.Verdict, o.Reason)
			}
		}
		if e.layers != 2 {
			t.Errorf("%s: %d layers are open", s.Kind, e.layers)
		}
		s.Config.MaxAccumulators, s.Config.MaxLayers = 9, 2
		verdicts, _, _ = fold(t, s, []oona.LayerID{"a", "b", "c"}, 10, 10, 10)
		if o := verdicts[2]; o.Verdict != windows.Overflowed || o.Reason != windows.ReasonLayers {
			t.Errorf("%s: a third layer is %s (%s)", s.Kind, o.Verdict, o.Reason)
		}
	}
}

func TestSettingsAreRefused(t *testing.T) {
	for field, change := range map[string]func(*Settings){
		"Length":  func(s *Settings) { s.Config.Length = 0 },
		"Hop":     func(s *Settings) { s.Kind, s.Hop = oona.Hopping, 3*time.Second },
		"Gap":     func(s *Settings) { s.Kind = oona.Session },
		"Reducer": func(s *Settings) { s.Kind, s.Gap, s.Config.Reducer = oona.Session, time.Second, 1 },
		"Kind":    func(s *Settings) { s.Kind = 9 },
	} {
		s := Settings{Config: windows.DefaultConfig()}
		s.Config.Reducer = 2
		change(&s)
		if wrong, ok := errors.AsType[*oona.FieldError](s.Validate()); !ok || wrong.Field != field {
			t.Errorf("%s: %v", field, s.Validate())
		}
	}
}
