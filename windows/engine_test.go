package windows

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/model/exact"
)

func TestGuard(t *testing.T) {
	const micro = 1e-6
	for _, c := range []struct {
		name     string
		observed float64
		want     Reason
	}{
		{"as far ahead as allowed", 100 + 60, ReasonNone},
		{"further ahead", 100 + 60 + micro, ReasonFuture},
		{"as far behind as allowed", 100 - 86400, ReasonNone},
		{"further behind", 100 - 86400 - micro, ReasonStale},
		{"an hour ahead", 3700, ReasonFuture},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPartition(t, DefaultConfig())
			o := p.append(100, sample{observed: c.observed})
			want := Quarantined
			if c.want == ReasonNone {
				want = Folded
			}
			p.must(want, c.want, o)
		})
	}
}

func TestGuardAtTheEndsOfTime(t *testing.T) {
	for _, c := range []struct {
		name         string
		observed, at oona.Micros
		want         Reason
	}{
		{"year 1", oona.MicrosOf(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)), origin, ReasonStale},
		{"year 9999", oona.MicrosOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), origin, ReasonFuture},
		{"the first instant", math.MinInt64, origin, ReasonStale},
		{"the last instant", math.MaxInt64, origin, ReasonFuture},
		{"the first instant in the last", math.MinInt64, math.MaxInt64, ReasonStale},
		{"the last instant in the first", math.MaxInt64, math.MinInt64, ReasonFuture},
		{"all is last", math.MaxInt64, math.MaxInt64, ReasonNone},
		{"all is first", math.MinInt64, math.MinInt64, ReasonNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPartition(t, DefaultConfig())
			r := sample{}.record(0)
			r.Frame.ObservedAt, r.AppendedAt = c.observed, c.at
			if o := p.engine.Fold(r, nil); o.Reason != c.want {
				t.Errorf("%+v, want reason %q", o, c.want)
			}
		})
	}
}

// A frame with an impossible event time changes nothing, neither the number of timelines
// nor a frontier.
func TestGuardComesFirst(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxTimelines = 1 }))
	p.must(Quarantined, ReasonFuture, p.append(0, sample{run: "other", observed: 1000}))
	p.folded(p.append(0, sample{observed: 0}))
	p.must(Quarantined, ReasonFuture, p.append(0, sample{observed: 1000}))
	p.must(Quarantined, ReasonStale, p.append(0, sample{producer: "slow", observed: -90_000}))
	p.folded(p.append(16, sample{observed: 16}))
	p.wantClosed("run//layer@0")
}

func TestLateAtTheEdge(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 5}))
	p.folded(p.append(0, sample{observed: 15.999999}))
	// The watermark is at 14.999999, and the window [0, 10) closes at 15.
	p.wantClosed()
	p.folded(p.append(0, sample{observed: 9.999999}))
	p.folded(p.append(0, sample{observed: 16}))
	p.wantClosed("run//layer@0")
	p.must(Late, ReasonLate, p.append(0, sample{observed: 9.999999}))
	p.folded(p.append(0, sample{observed: 10}))
}

// The watermark before a frame decides whether the frame is late. The frame itself advances the
// watermark only afterwards.
func TestOwnWatermarkComesAfter(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 0}))
	p.folded(p.append(30, sample{observed: 30}))
	p.wantClosed("run//layer@0")
	if got := p.engine.OpenWindows(); got != 1 {
		t.Errorf("%d windows are open, want 1", got)
	}
}

// A late frame and a repeat advance their producer's frontier.
func TestTurnedAwayFramesAdvanceTheFrontier(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 40, producer: "fast"}))
	// The frame of the slow producer is late, and still holds back the watermark.
	p.must(Late, ReasonLate, p.append(0, sample{observed: 21, producer: "slow"}))
	p.folded(p.append(0, sample{observed: 60, producer: "fast"}))
	p.wantClosed()
	p.folded(p.append(0, sample{observed: 58, producer: "slow", sequence: 7}))
	p.wantClosed("run//layer@40")

	p = newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 25, producer: "a", sequence: 1}))
	p.must(Duplicate, ReasonDuplicate, p.append(0, sample{observed: 25, producer: "a", sequence: 1, path: "in1"}))
	p.folded(p.append(0, sample{observed: 60, producer: "a"}))
	p.wantClosed() // because the frontier of the second path is at 25
}

// No producer is idle before the horizon has passed, and all are after 1.25 horizons. Then
// the watermark advances just far enough to close the open windows.
func TestIdleJustFarEnough(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	for s := range 26 {
		p.folded(p.append(float64(s), sample{observed: float64(s)}))
	}
	p.wantClosed("run//layer@0")
	for s := 26; s <= 26+59; s++ {
		p.tick(float64(s))
	}
	p.wantClosed()
	for s := 86; s <= 26+75; s++ {
		p.tick(float64(s))
	}
	p.wantClosed("run//layer@10", "run//layer@20")
	if n := p.engine.OpenWindows(); n != 0 {
		t.Errorf("%d windows are open", n)
	}
	for s := 102; s < 1000; s++ {
		p.tick(float64(s))
	}
	p.must(Late, ReasonLate, p.append(1000, sample{observed: 29.999999}))
	p.folded(p.append(1000, sample{observed: 30}))
}

// If a trainer is disconnected for an hour at the end of a window and then sends its spool, no frame
// is late.
func TestDrainedSpoolIsNotLate(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	for s := range 30 {
		p.folded(p.append(float64(s), sample{observed: float64(s)}))
	}
	for s := 30; s < 3630; s++ {
		p.tick(float64(s))
	}
	p.wantClosed("run//layer@0", "run//layer@10", "run//layer@20")
	for s := 30; s < 3630; s++ {
		p.folded(p.append(3630+float64(s)/1000, sample{observed: float64(s)}))
	}
	// The last window is still open, because the watermark is at 3628.
	if got, want := len(p.closed()), (3630-30)/10-1; got != want {
		t.Errorf("%d windows have closed, want %d", got, want)
	}
}

// The bus is down for ten hours. The log clock advances by two ticks only, so a producer that was
// silent for two seconds still holds back the watermark.
func TestBusOutageIsNobodysIdleness(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 0, producer: "slow"}))
	p.folded(p.append(2, sample{observed: 2, producer: "fast"}))
	const outage = 36_000
	p.folded(p.append(outage, sample{observed: outage, producer: "fast"}))
	p.wantClosed()
	p.folded(p.append(outage, sample{observed: 3, producer: "slow"}))
	if got, want := p.engine.clock.Now, oona.Micros(4e6); got != want {
		t.Errorf("the log clock is at %d, want %d", got, want)
	}
}

// Event time closes windows even if all append times are equal, as they are within a batch.
func TestEqualAppendTimes(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	for s := range 50 {
		p.folded(p.append(50, sample{observed: float64(s)}))
	}
	p.wantClosed("run//layer@0", "run//layer@10", "run//layer@20", "run//layer@30")
}

// The clock of a new leader is 16 s behind. No frame is lost, and the log clock continues.
func TestAppendClockStepsBack(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	for s := range 120 {
		skew := 0.0
		if s >= 20 {
			skew = -16
		}
		p.folded(p.append(float64(s)+skew, sample{observed: float64(s)}))
	}
	if got, want := len(p.closed()), 11; got != want { // the watermark is at 118
		t.Errorf("%d windows have closed, want %d", got, want)
	}
	if got, want := p.engine.clock.Now, oona.Micros(118e6); got != want {
		t.Errorf("the log clock is at %d, want %d", got, want)
	}
}

// The last windows of a run that has ended close because of the records of another run.
func TestEndedRunClosesUnderAnothersTraffic(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{run: "ended", observed: 0}))
	p.folded(p.append(0, sample{run: "ended", observed: 11}))
	for s := range 75 {
		p.folded(p.append(float64(s), sample{run: "other", observed: 0}))
	}
	p.wantClosed()
	p.folded(p.append(75, sample{run: "other", observed: 0}))
	p.wantClosed("ended//layer@0", "ended//layer@10")
}

// A spool that is sent on a second path holds back the watermark while new frames arrive on the first
// path. Otherwise all frames of the spool would be late.
func TestSpoolOnASecondPathHoldsTheWatermark(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(600, sample{observed: 0, path: "spool"}))
	for s := 1; s < 600; s++ {
		at := 600 + float64(s)/10
		p.folded(p.append(at, sample{observed: at, path: "direct"}))
		p.folded(p.append(at, sample{observed: float64(s), path: "spool"}))
	}
	// The spool has been sent up to 599. New frames have opened the windows from 600 on.
	if got, want := len(p.closed()), 59; got != want {
		t.Errorf("%d windows have closed, want %d", got, want)
	}
}

func TestTumblingWindows(t *testing.T) {
	for _, c := range []struct{ at, want oona.Micros }{
		{0, 0}, {1, 0}, {9, 0}, {10, 10}, {-1, -10}, {-10, -10}, {-11, -20}, {1_234_567, 1_234_560},
		{math.MaxInt64, math.MaxInt64 - 7}, {math.MinInt64, math.MinInt64},
	} {
		if got := windowStart(c.at, 0, 10); got != c.want {
			t.Errorf("the window of %d starts at %d, want %d", c.at, got, c.want)
		}
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ t, u, want oona.Micros }{
		{5, 3, 2}, {3, 5, -2}, {-3, -5, 2}, {-5, 3, -8},
		{math.MaxInt64, -1, math.MaxInt64}, {math.MinInt64, 1, math.MinInt64},
		{0, math.MinInt64, math.MaxInt64}, {-1, math.MinInt64, math.MaxInt64}, {-2, math.MinInt64, math.MaxInt64 - 1},
		{math.MinInt64, math.MaxInt64, math.MinInt64}, {math.MaxInt64, math.MinInt64, math.MaxInt64},
	} {
		if got := difference(c.t, c.u); got != c.want {
			t.Errorf("%d - %d is %d, want %d", c.t, c.u, got, c.want)
		}
	}
}

func TestDuplicates(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	first := sample{observed: 1, sequence: 1}
	p.folded(p.append(0, first))
	p.must(Duplicate, ReasonDuplicate, p.append(0, first))
	p.must(Duplicate, ReasonDuplicate, p.append(0, first))
	// Other bytes with the same identity, in the same window, in another window, and in another
	// layer.
	p.must(Quarantined, ReasonConflict, p.append(0, sample{observed: 1, sequence: 1, step: 9}))
	p.folded(p.append(0, sample{observed: 12, sequence: 1})) // in another window it is another frame
	p.must(Quarantined, ReasonConflict, p.append(0, sample{observed: 1, sequence: 1, layer: "other"}))
	// Each producer, epoch and timeline has its own identities.
	p.folded(p.append(0, sample{observed: 1, sequence: 1, producer: "other"}))
	restarted := sample{observed: 1, sequence: 1}.record(0)
	restarted.Frame.Epoch = 5
	p.folded(p.fold(0, restarted))
	p.folded(p.append(0, sample{observed: 1, sequence: 1, timeline: "rank"}))

	p.folded(p.append(0, sample{observed: 20, producer: "other"}))
	p.folded(p.append(0, sample{observed: 20}))
	if r := p.rollups[0]; r.Frames != 3 || r.Duplicates != 2 || r.FirstOffset != 0 || r.LastOffset != 7 {
		t.Errorf("the window has %d frames and %d duplicates of offsets %d to %d, want 3 and 2 of 0 to 7", r.Frames, r.Duplicates, r.FirstOffset, r.LastOffset)
	}
	// The identity was forgotten when its window closed.
	p.must(Late, ReasonLate, p.append(0, first))
	p.folded(p.append(0, sample{observed: 21, sequence: 1}))
}

func TestTimelineCap(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxTimelines = 2 }))
	p.folded(p.append(0, sample{run: "a", observed: 1}))
	p.folded(p.append(0, sample{run: "a", timeline: "rank1", observed: 1}))
	p.must(Overflowed, ReasonTimelines, p.append(0, sample{run: "b", observed: 1}))
	p.folded(p.append(0, sample{run: "a", observed: 2}))
}

// A frame that exceeds a limit changes nothing: it adds no layer, window, metric, seed or identity.
func TestCapsOfAWindow(t *testing.T) {
	columns := func(names ...string) []oona.Column {
		var list []oona.Column
		for _, name := range names {
			list = append(list, oona.Column{Name: name, Values: []float32{1}})
		}
		return list
	}
	p := newPartition(t, withConfig(func(c *Config) { c.MaxLayers, c.MaxMetrics, c.MaxSeeds = 2, 2, 3 }))
	p.must(Overflowed, ReasonMetrics, p.append(0, sample{observed: 1, metrics: columns("a", "b", "c")}))
	p.must(Overflowed, ReasonSeeds, p.append(0, sample{observed: 1, seeds: []oona.SeedID{1, 2, 3, 4}}))
	if n := p.engine.OpenWindows(); n != 0 {
		t.Fatalf("%d windows are open", n)
	}
	p.folded(p.append(0, sample{observed: 1, layer: "x", metrics: columns("a")}))
	p.folded(p.append(0, sample{observed: 1, layer: "y", seeds: []oona.SeedID{5, 3}}))
	p.must(Overflowed, ReasonLayers, p.append(0, sample{observed: 1, layer: "z", sequence: 1}))
	p.folded(p.append(0, sample{observed: 11, layer: "z", sequence: 1})) // another window, and not a conflict

	p.must(Overflowed, ReasonMetrics, p.append(0, sample{observed: 1, layer: "x", metrics: columns("b", "c")}))
	p.folded(p.append(0, sample{observed: 1, layer: "x", metrics: columns("b", "a")}))
	p.must(Overflowed, ReasonMetrics, p.append(0, sample{observed: 1, layer: "x", metrics: columns("c")}))

	p.must(Overflowed, ReasonSeeds, p.append(0, sample{observed: 1, layer: "y", seeds: []oona.SeedID{3, 6, 7}}))
	p.folded(p.append(0, sample{observed: 1, layer: "y", seeds: []oona.SeedID{7, 3}}))
	p.must(Overflowed, ReasonSeeds, p.append(0, sample{observed: 1, layer: "y", seeds: []oona.SeedID{8}}))
	p.folded(p.append(0, sample{observed: 1, layer: "y", seeds: []oona.SeedID{7}}))

	p.folded(p.append(20, sample{observed: 20, layer: "z"}))
	for _, r := range p.rollups {
		if r.Group == oona.Health && r.Layer == "y" && (r.Seeds.Seen != 3 || r.Frames != 3 || r.Readings != 5) {
			t.Errorf("layer y has %d seeds, %d frames, %d readings, want 3, 3, 5", r.Seeds.Seen, r.Frames, r.Readings)
		}
		if r.Group == oona.Performance && r.Layer == "x" && (len(r.Metrics) != 2 || r.Metrics[0].Count != 2) {
			t.Errorf("layer x has metrics %+v, want a and b", r.Metrics)
		}
	}
	p.wantClosed("run//x@0", "run//y@0")
}

// A record can close windows twice. First it evaluates all timelines, because it begins a tick
// interval. These windows are in the order of end, run and timeline. Then it advances its own watermark.
// The index continues from the first time to the second. The watermark in all rollups is the one before
// the record.
func TestEmissionOrder(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	for _, s := range []sample{
		{run: "b", observed: 11, layer: "l2"}, {run: "b", observed: 12, layer: "l1"}, {run: "b", observed: 1, layer: "l9"},
		{run: "a", timeline: "r2", observed: 11}, {run: "a", timeline: "r1", observed: 11}, {run: "a", timeline: "r1", observed: 21},
		{run: "c", producer: "slow", observed: 3},
	} {
		p.folded(p.append(0, s))
	}
	for s := range 75 {
		p.folded(p.append(float64(s), sample{run: "c", producer: "fast", observed: float64(s)}))
	}
	p.wantClosed()
	p.folded(p.append(75, sample{run: "c", producer: "fast", observed: 77}))
	rollups := p.rollups
	p.wantClosed(
		"b//l9@0", "c//layer@0",
		"a/r1/layer@10", "a/r2/layer@10", "b//l1@10", "b//l2@10", "c//layer@10",
		"a/r1/layer@20", "c//layer@20", "c//layer@30", "c//layer@40", "c//layer@50",
		"c//layer@60", // closed by its own watermark
	)
	for i, r := range rollups {
		if want := (oona.Trigger{Offset: p.offset - 1, Index: int32(i / 2)}); r.Trigger != want {
			t.Errorf("rollup %d has trigger %+v, want %+v", i, r.Trigger, want)
		}
		if want := [...]oona.Group{oona.Health, oona.Performance}[i%2]; r.Group != want {
			t.Errorf("rollup %d is of %s, want %s", i, r.Group, want)
		}
		before := map[oona.RunID]oona.Micros{"a": instant(10), "b": instant(11), "c": instant(2)}[r.Run]
		if r.Timeline == "r1" {
			before = instant(20)
		}
		if r.Run != "b" && r.Watermark != before {
			t.Errorf("rollup %d of %s has watermark %d, want %d", i, r.Run, r.Watermark, before)
		}
		if r.Hash != r.ContentHash() {
			t.Errorf("rollup %d has a wrong hash", i)
		}
	}
}

func TestRollupContent(t *testing.T) {
	for reducer := int32(1); reducer <= Reducer; reducer++ {
		t.Run(fmt.Sprint("reducer ", reducer), func(t *testing.T) { testRollupContent(t, reducer) })
	}
}

func testRollupContent(t *testing.T, reducer int32) {
	p := newPartition(t, withConfig(func(c *Config) { c.Generation, c.WorstSeeds, c.Reducer = 7, 2, reducer }))
	nan := float32(math.NaN())
	p.folded(p.append(0, sample{observed: 1, step: 10, seeds: []oona.SeedID{1, 2, 3}, states: []oona.State{oona.Training, oona.Dormant, oona.Grafting},
		metrics: []oona.Column{{Name: "loss", Values: []float32{1, 3, nan}}, {Name: "gain", Values: []float32{1, -2, 0}}}}))
	p.folded(p.append(0, sample{observed: 5, step: 30, seeds: []oona.SeedID{3, 4}, states: []oona.State{oona.Culled, oona.FineTuning},
		metrics: []oona.Column{{Name: "gain", Values: []float32{4, -2}}, {Name: "loss", Values: []float32{-1, float32(math.Inf(1))}}}}))
	p.folded(p.append(17, sample{observed: 17}))
	if len(p.rollups) != 2 {
		t.Fatalf("%d rollups, want 2", len(p.rollups))
	}
	health, performance := p.rollups[0], p.rollups[1]
	common := oona.Rollup{
		Run: "run", Layer: "layer", Start: origin, End: instant(10), Trigger: oona.Trigger{Offset: 2}, Watermark: instant(4),
		FirstOffset: 0, LastOffset: 1, Frames: 2, Readings: 5, Generation: 7, Reducer: reducer,
	}
	first, second := int64(0), int64(1)
	if reducer == 1 {
		first, second = oona.NoOffset, oona.NoOffset
	}
	wantHealth, wantPerformance := common, common
	wantHealth.Seeds = oona.SeedCensus{Seen: 4, Active: 2}
	for _, s := range []oona.State{oona.Training, oona.Dormant, oona.Culled, oona.FineTuning} {
		wantHealth.Seeds.ByState[s]++
	}
	wantHealth.Metrics = []oona.MetricSummary{{
		Name: "loss", Count: 3, NotMeasured: 1, Infinite: 1, Sum: 3, Min: -1, Max: 3, Mean: 1, M2: 8,
		Histogram: oona.Histogram{
			Positive: oona.Buckets{Indexes: []int32{0, 51}, Counts: []uint64{1, 1}},
			Negative: oona.Buckets{Indexes: []int32{0}, Counts: []uint64{1}},
		},
		Worst: []oona.SeedValue{{Seed: 2, Value: 3, Offset: first}, {Seed: 1, Value: 1, Offset: first}},
	}}
	wantPerformance.Group = oona.Performance
	wantPerformance.Rates = oona.Rates{FramesPerSecond: 0.2, ReadingsPerSecond: 0.5, StepsPerSecond: 5, Delay: 12e6}
	wantPerformance.Metrics = []oona.MetricSummary{{
		Name: "gain", Count: 5, Sum: 1, Min: -2, Max: 4, Mean: 0.2, M2: 24.8,
		Histogram: oona.Histogram{
			Zero:     1,
			Positive: oona.Buckets{Indexes: []int32{0, 64}, Counts: []uint64{1, 1}},
			Negative: oona.Buckets{Indexes: []int32{32}, Counts: []uint64{2}},
		},
		Worst: []oona.SeedValue{{Seed: 2, Value: -2, Offset: first}, {Seed: 4, Value: -2, Offset: second}},
	}}
	if reducer == 2 {
		wantPerformance.Rates.Steps, wantPerformance.Rates.StepTime = 20, 4e6
		wantHealth.Metrics[0].NotMeasuredActive = 1
	}
	if err := exact.CompareRollups(&health, &wantHealth); err != nil {
		t.Error(err)
	}
	if err := exact.CompareRollups(&performance, &wantPerformance); err != nil {
		t.Error(err)
	}
}

// A record below ProcessedTo is a redelivery: it changes nothing.
func TestRedelivery(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	if got := p.engine.ProcessedTo(); got != 0 {
		t.Fatalf("a new engine has processed to %d", got)
	}
	p.folded(p.append(0, sample{observed: 1, sequence: 1}))
	p.tick(0.5)
	again := sample{observed: 40, sequence: 2}.record(0)
	again.AppendedAt = instant(40)
	p.must(Passed, ReasonProcessed, p.engine.Fold(again, nil))
	if got := p.engine.ProcessedTo(); got != 2 {
		t.Errorf("processed to %d, want 2", got)
	}
	if p.engine.OpenWindows() != 1 || p.engine.clock.Now != 5e5 {
		t.Errorf("a redelivery changed the engine: %d windows, clock at %d", p.engine.OpenWindows(), p.engine.clock.Now)
	}
}

// Two (producer, path) pairs in the same slot share its frontier, so the slower one does not hold back
// the watermark. The test has a single slot, so that all pairs share it.
func TestSharedFrontierSlot(t *testing.T) {
	for _, c := range []struct {
		slots int
		want  Verdict
	}{{1, Late}, {4096, Folded}} {
		p := newPartition(t, withConfig(func(cfg *Config) { cfg.FrontierSlots = c.slots }))
		p.folded(p.append(0, sample{observed: 1, producer: "slow"}))
		p.folded(p.append(0, sample{observed: 40, producer: "fast"}))
		if o := p.append(0, sample{observed: 2, producer: "slow"}); o.Verdict != c.want {
			t.Errorf("with %d slots the slow producer's frame is %s, want %s", c.slots, o.Verdict, c.want)
		}
	}
}

func TestVerdictNames(t *testing.T) {
	for v, want := range map[Verdict]string{Folded: "folded", Duplicate: "duplicate", Late: "late", Quarantined: "quarantined", Overflowed: "overflowed", Passed: "passed", Replayed: "replayed", 99: "unknown"} {
		if got := v.String(); got != want {
			t.Errorf("verdict %d is %q, want %q", v, got, want)
		}
	}
}
