package verdict_test

import (
	"math"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

// steady makes windows of a healthy layer with the metric. It returns a judge that has observed
// them.
func steady(l *layer, metric string, windows int) *verdict.Judge {
	j := verdict.NewJudge(rules)
	for range windows {
		j.Observe(l.health(metric, .03, .033, .036))
	}
	return j
}

// kinds returns the kinds of a verdict's reasons.
func kinds(v verdict.Verdict) (of []verdict.Kind) {
	for _, r := range v.Reasons {
		of = append(of, r.Kind)
	}
	return of
}

// expect compares a verdict's level and the kinds of its reasons.
func expect(t *testing.T, when string, v verdict.Verdict, level verdict.Level, want ...verdict.Kind) {
	t.Helper()
	if v.Level != level || !slices.Equal(kinds(v), want) {
		t.Errorf("%s: %v, %v; want %v, %v", when, v.Level, v.Reasons, level, want)
	}
}

func TestInfiniteIsCriticalAtOnce(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "gradient_norm", 1)
	r := l.health("gradient_norm", .03)
	r.Metrics[0].Infinite = 1
	j.Observe(r)
	expect(t, "one infinite sample", j.At(l.end), verdict.Critical, verdict.Infinite)
	unknown := l.health("novel", .03)
	unknown.Metrics[0].Infinite = 1
	k := verdict.NewJudge(rules)
	k.Observe(unknown)
	expect(t, "of a metric without a rule", k.At(l.end), verdict.OK)
}

func TestNotMeasured(t *testing.T) {
	for _, tt := range []struct {
		reducer     int32
		nan         int64 // of active seeds, beside three samples
		level       verdict.Level
		readings    int64
		description string
	}{
		{2, 0, verdict.OK, 10, "seven seeds are not active"},
		{2, 1, verdict.Warning, 10, "one of four"},
		{2, 4, verdict.Critical, 10, "four of seven"},
		{1, 0, verdict.Critical, 10, "three of ten active seeds have a value, by the census"},
		{1, 0, verdict.OK, 3, "three readings in all"},
	} {
		l := layer{name: "enc"}
		j := steady(&l, "gradient_norm", 3)
		for range 2 {
			r := l.health("gradient_norm", .03, .033, .036)
			r.Reducer, r.Readings, r.Metrics[0].NotMeasuredActive = tt.reducer, tt.readings, tt.nan
			j.Observe(r)
		}
		if v := j.At(l.end); v.Level != tt.level {
			t.Errorf("reducer %d, %s: %v %v, want %v", tt.reducer, tt.description, v.Level, v.Reasons, tt.level)
		}
	}
}

func TestSilentSeeds(t *testing.T) {
	for _, tt := range []struct {
		name         string
		training     int64
		culled       int64
		level        verdict.Level
		silent, most int64
	}{
		{"all report", 100, 0, verdict.OK, 0, 0},
		{"one in eight is silent", 88, 0, verdict.OK, 0, 0},
		{"more are silent", 87, 0, verdict.Warning, 13, 100},
		{"most are silent", 40, 0, verdict.Critical, 60, 100},
		{"most are culled", 40, 60, verdict.OK, 0, 0},
		{"half are culled, a fifth is silent", 30, 50, verdict.Warning, 20, 50},
	} {
		l, j := layer{name: "enc"}, verdict.NewJudge(rules)
		window := func(training, culled int64) {
			r := l.health("gradient_norm", .03, .033, .036)
			r.Seeds = oona.SeedCensus{Seen: training + culled, Active: training}
			r.Seeds.ByState[oona.Training], r.Seeds.ByState[oona.Culled] = training, culled
			j.Observe(r)
		}
		window(100, 0)
		for range 5 {
			window(tt.training, tt.culled)
		}
		v := j.At(l.end)
		if v.Level != tt.level {
			t.Errorf("%s: %v %v, want %v", tt.name, v.Level, v.Reasons, tt.level)
		}
		if tt.most > 0 && (len(v.Reasons) != 1 || v.Reasons[0].Kind != verdict.SilentSeeds || v.Reasons[0].Part != tt.silent || v.Reasons[0].Of != tt.most) {
			t.Errorf("%s: %+v, want %d of %d", tt.name, v.Reasons, tt.silent, tt.most)
		}
	}
}

func TestDead(t *testing.T) {
	for dead, want := range map[int]verdict.Level{0: verdict.OK, 2: verdict.OK, 3: verdict.Warning, 5: verdict.Critical} {
		l, j := layer{name: "enc"}, verdict.NewJudge(rules)
		values := slices.Repeat([]float64{.1}, 8-dead)
		values = append(values, slices.Repeat([]float64{.99}, dead)...)
		for range 2 {
			j.Observe(l.health("dead_fraction", values...))
		}
		if v := j.At(l.end); v.Level != want {
			t.Errorf("%d of 8 dead: %v %v, want %v", dead, v.Level, v.Reasons, want)
		}
	}
}

func TestRegressedAndDrift(t *testing.T) {
	for metric, want := range map[string]verdict.Kind{"reconstruction_loss": verdict.Regressed, "gradient_norm": verdict.Drift} {
		l := layer{name: "enc"}
		j := steady(&l, metric, 40)
		found := false
		for w := range 120 {
			x := .033 * math.Exp2(5*float64(w)/120) // within what is usual, each time
			j.Observe(l.health(metric, .9*x, x, 1.1*x))
			v := j.At(l.end)
			found = found || slices.Contains(kinds(v), want)
			if v.Level == verdict.Critical {
				t.Fatalf("%s, window %d: %v", metric, w, v.Reasons)
			}
		}
		if !found {
			t.Errorf("%s rose to 32 times in 120 windows, and that is not called %v", metric, want)
		}
	}
}

func TestOutlier(t *testing.T) {
	l, j := layer{name: "enc"}, verdict.NewJudge(rules)
	values := []float64{.03, .03, .03, .03, .033, .033, .033, .036, .036}
	for range 12 {
		j.Observe(l.health("gradient_norm", values...))
	}
	values[8] = 30
	for range 2 {
		j.Observe(l.health("gradient_norm", values...))
	}
	expect(t, "one seed at 1000 times", j.At(l.end), verdict.Warning, verdict.Outlier)
}

func TestStuck(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "gradient_norm", 3)
	for repeat := range 5 {
		r := l.health("gradient_norm", .03, .033, .036)
		r.Metrics[0].Mean = .033
		j.Observe(r)
		if v := j.At(l.end); repeat < 4 && v.Level != verdict.OK {
			t.Errorf("after %d equal windows: %v", repeat+1, v.Reasons)
		}
	}
	expect(t, "five equal windows", j.At(l.end), verdict.Warning, verdict.Stuck)
}

// A layer whose level has changed after a long pause is healthy. Without the pause it is unhealthy.
func TestGap(t *testing.T) {
	for pause, want := range map[oona.Micros]verdict.Level{0: verdict.Critical, 90 * second: verdict.Critical, 300 * second: verdict.OK} {
		l := layer{name: "enc"}
		j := steady(&l, "gradient_norm", 30)
		l.end += pause
		for range 4 {
			j.Observe(l.health("gradient_norm", 3, 3.3, 3.6))
		}
		if v := j.At(l.end); v.Level != want {
			t.Errorf("a pause of %d s: %v %v, want %v", pause/second, v.Level, v.Reasons, want)
		}
	}
}

// A new level is accepted after some time. A spike does not change the expected range.
func TestAcceptance(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "gradient_norm", 30)
	last := 0
	for w := range 40 {
		j.Observe(l.health("gradient_norm", .15, .16, .17)) // five times
		if j.At(l.end).Level != verdict.OK {
			last = w
		}
	}
	if last < 15 || last > 20 {
		t.Errorf("a new level was last a fault in window %d; want that it is accepted after 16", last)
	}
	for range 3 {
		j.Observe(l.health("gradient_norm", 1000, 1100, 1200))
	}
	for m := range j.Metrics() {
		if m.Low > .16 || m.High < .16 || m.High > 1 {
			t.Errorf("after a spike, %g to %g is expected", m.Low, m.High)
		}
	}
}

// performance returns the rollup of the next window, in which the steps rose by the given number.
func (l *layer) performance(steps int64) *oona.Rollup {
	r := l.health("compute_seconds", .01, .011)
	r.Group, r.Seeds = oona.Performance, oona.SeedCensus{}
	r.Rates = oona.Rates{Steps: steps, StepTime: 9 * second}
	return r
}

func TestStepsStall(t *testing.T) {
	r := verdict.NewRun(rules)
	a, b := layer{name: "a"}, layer{name: "b"}
	both := func(n int, of, others int64) {
		for range n {
			r.Observe(a.performance(of))
			r.Observe(b.performance(others))
		}
	}
	at := func(layer oona.LayerID) verdict.Verdict {
		v, _ := r.At(layer, r.Now())
		return v
	}
	both(5, 10, 10)
	both(6, 0, 0)
	expect(t, "the steps of all layers stand still", at("a"), verdict.OK)
	both(2, 10, 10)
	both(2, 0, 10)
	expect(t, "two windows behind", at("a"), verdict.OK)
	both(1, 0, 10)
	expect(t, "three windows behind", at("a"), verdict.Warning, verdict.Stalled)
	if v := at("a"); v.Reasons[0].Metric != "steps" || v.Since != a.end-30*second {
		t.Errorf("%+v; want steps, since three windows", v)
	}
	expect(t, "the other layer", at("b"), verdict.OK)
	both(1, 10, 10)
	expect(t, "the steps rise again", at("a"), verdict.OK)
}

// A layer that has a window only now and then is not stalled because of that.
func TestRareWindowsAreNoStall(t *testing.T) {
	r := verdict.NewRun(rules)
	rare, often := layer{name: "rare"}, layer{name: "often"}
	for w := range 60 {
		r.Observe(often.health("gradient_norm", .03, .033))
		if w%5 == 0 {
			rare.end = often.end - 10*second
			r.Observe(rare.health("gradient_norm", .03, .033))
		}
		if v, _ := r.At("rare", r.Now()); w > 10 && v.Level != verdict.OK {
			t.Fatalf("window %d: %v", w, v.Reasons)
		}
	}
}

// Topics and partitions are read in any order, and that makes no difference to the verdicts.
func TestOrderOfReadingMakesNoDifference(t *testing.T) {
	a, b := layer{name: "a"}, layer{name: "b"}
	var health, performance, others []*oona.Rollup
	for w := range 40 {
		by := 1.0
		if w > 30 {
			by = 50
		}
		h := a.health("gradient_norm", .03*by, .033*by, .036*by)
		p := *h
		p.Group, p.Metrics = oona.Performance, nil
		p.Rates = oona.Rates{Steps: 5, StepTime: second}
		health, performance = append(health, h), append(performance, &p)
		others = append(others, b.health("gradient_norm", .03, .033, .036))
	}
	var want []verdict.Layer
	for name, order := range map[string][][]*oona.Rollup{
		"one topic after the other": {health, performance, others},
		"the other way":             {others, performance, health},
	} {
		run := verdict.NewRun(rules)
		for _, part := range order {
			for _, r := range part {
				run.Observe(r)
			}
		}
		got := run.Layers(run.Now())
		if want == nil {
			want = got
		}
		for i := range got {
			if got[i].Name != want[i].Name || got[i].Level != want[i].Level || got[i].Since != want[i].Since || !slices.Equal(got[i].Reasons, want[i].Reasons) {
				t.Errorf("%s: %+v, want %+v", name, got[i], want[i])
			}
		}
	}
	if want[0].Name != "a" || want[0].Level != verdict.Critical {
		t.Errorf("%+v", want)
	}
}

// A judge that begins in the middle of a run soon returns the same verdicts as one that began earlier.
func TestLateBegin(t *testing.T) {
	l, early, late := layer{name: "enc"}, verdict.NewJudge(rules), verdict.NewJudge(rules)
	for w := range 160 {
		x := .033 * math.Exp2(.3*math.Sin(float64(w)))
		if w >= 150 {
			x *= 20
		}
		r := l.health("gradient_norm", .9*x, x, 1.1*x)
		early.Observe(r)
		if w >= 100 {
			late.Observe(r)
		}
		if v, u := early.At(l.end), late.At(l.end); w >= 110 && (v.Level != u.Level || !slices.Equal(kinds(v), kinds(u))) {
			t.Errorf("window %d: %v %v, and a judge that began late says %v %v", w, v.Level, v.Reasons, u.Level, u.Reasons)
		}
	}
	if v := late.At(l.end); v.Level == verdict.OK {
		t.Error("the fault is not found")
	}
}

func TestCompareLayers(t *testing.T) {
	sorted := []oona.LayerID{"", "7", "a", "a01", "a1", "a1b", "a2", "a10", "a10.2", "a10.10", "b"}
	for i, a := range sorted {
		for k, b := range sorted {
			if got, want := verdict.CompareLayers(a, b), i-k; (got < 0) != (want < 0) || (got > 0) != (want > 0) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

func TestReasonsAreRanked(t *testing.T) {
	l := layer{name: "enc"}
	j := verdict.NewJudge(rules)
	window := func(gradient, loss float64, infinite int64) {
		r := l.health("gradient_norm", .9*gradient, gradient, 1.1*gradient)
		l.end -= 10 * second
		r.Metrics = append(r.Metrics, l.health("reconstruction_loss", .9*loss, loss, 1.1*loss).Metrics...)
		r.Metrics[0].Infinite = infinite
		j.Observe(r)
	}
	for range 30 {
		window(1, 1, 0)
	}
	for range 2 {
		window(3, 6, 1)
	}
	v := j.At(l.end)
	var got []string
	for _, r := range v.Reasons {
		got = append(got, r.Metric+" "+r.Kind.String()+" "+r.Level.String())
	}
	if want := []string{"gradient_norm infinite critical", "reconstruction_loss high warning", "gradient_norm high warning"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
