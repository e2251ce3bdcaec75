package verdict_test

import (
	"math"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

const second = oona.Micros(1e6)

// rules judges gradient_norm and reconstruction_loss as the built-in catalogue does.
func rules(metric string) verdict.Rule {
	switch metric {
	case "gradient_norm":
		return verdict.Rule{Judged: true, Level: verdict.Both, Warn: 2, Critical: 10, Due: true, Outlier: 16, Drift: true, Stuck: true}
	case "reconstruction_loss":
		return verdict.Rule{Judged: true, Level: verdict.Up, Warn: 2, Critical: 10, Best: true, Stuck: true}
	case "dead_fraction":
		return verdict.Rule{Judged: true, Dead: true}
	}
	return verdict.Rule{}
}

// layer makes rollups of a layer by hand, for cases that no training run has.
type layer struct {
	name oona.LayerID
	end  oona.Micros
	n    int64
}

// health returns the rollup of the next window of ten seconds. Ten training seeds have the given
// values in it.
func (l *layer) health(metric string, values ...float64) *oona.Rollup {
	if l.end == 0 {
		l.end = 1_700_000_000 * second
	}
	start := l.end
	l.end += 10 * second
	l.n++
	s := oona.MetricSummary{Name: metric, Count: int64(len(values))}
	for _, v := range values {
		s.Sum += v
		p := &s.Histogram.Positive
		p.Indexes = append(p.Indexes, int32(math.Ceil(32*math.Log2(v))))
		p.Counts = append(p.Counts, 1)
	}
	s.Min, s.Max, s.Mean = values[0], values[len(values)-1], s.Sum/float64(len(values))+float64(l.n)*1e-9
	r := &oona.Rollup{
		Group: oona.Health, Run: "run", Layer: l.name, Start: start, End: l.end, Reducer: 2,
		Frames: 1, Readings: 10, Seeds: oona.SeedCensus{Seen: 10, Active: 10}, Metrics: []oona.MetricSummary{s},
	}
	r.Seeds.ByState[oona.Training] = 10
	return r
}

func TestHighAndItsText(t *testing.T) {
	l, j := layer{name: "enc"}, verdict.NewJudge(rules)
	for range 20 {
		j.Observe(l.health("gradient_norm", .03, .033, .036))
	}
	if v := j.At(l.end); v.Level != verdict.OK || v.Learning || len(v.Reasons) != 0 {
		t.Fatalf("a steady layer: %+v", v)
	}
	at := l.end
	for window, want := range []verdict.Level{verdict.OK, verdict.Critical, verdict.Critical} {
		j.Observe(l.health("gradient_norm", 4, 4.1, 4.2))
		if v := j.At(l.end); v.Level != want {
			t.Fatalf("window %d of the fault: %v, want %v", window, v.Level, want)
		}
	}
	v := j.At(l.end)
	if len(v.Reasons) != 1 || v.Reasons[0].Kind != verdict.High || v.Reasons[0].Since != at || v.Since != at {
		t.Fatalf("%+v; want high since %d", v, at)
	}
	if text := v.Reasons[0].String(); !strings.HasPrefix(text, "gradient_norm high: median 4.1, expected 0.0") {
		t.Errorf("%q", text)
	}
	for range 2 {
		j.Observe(l.health("gradient_norm", .03, .033, .036))
		if v := j.At(l.end); v.Level != verdict.Critical {
			t.Fatalf("it falls before three windows without it: %+v", v)
		}
	}
	j.Observe(l.health("gradient_norm", .03, .033, .036))
	if v := j.At(l.end); v.Level != verdict.OK || v.Since != l.end {
		t.Errorf("after three windows without it: %+v", v)
	}
}

func TestRunStalls(t *testing.T) {
	r := verdict.NewRun(rules)
	a, b := layer{name: "enc.2"}, layer{name: "enc.10"}
	for range 5 {
		r.Observe(a.health("gradient_norm", .03, .033, .036))
		r.Observe(b.health("gradient_norm", .03, .033, .036))
	}
	for range 2 {
		r.Observe(b.health("gradient_norm", .03, .033, .036))
	}
	if l := r.Layers(r.Now()); l[0].Name != "enc.2" || l[0].Level != verdict.OK || l[1].Name != "enc.10" {
		t.Fatalf("two windows behind: %+v", l)
	}
	r.Observe(b.health("gradient_norm", .03, .033, .036))
	v, ok := r.At("enc.2", r.Now())
	if !ok || v.Level != verdict.Warning || len(v.Reasons) != 1 || v.Reasons[0].Kind != verdict.Stalled || v.Reasons[0].Part != 3 || v.Since != a.end {
		t.Errorf("three windows behind: %+v", v)
	}
	if v, _ := r.At("enc.2", 0); v.Level != verdict.OK {
		t.Errorf("while a reader catches up: %+v", v)
	}
}
