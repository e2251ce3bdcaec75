package e2e

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/deploy/grafana/draw"
)

// view is a dashboard with the answers to its queries.
type view struct {
	t       *testing.T
	uid     string
	answers []draw.Answer
}

// open asks all queries of a dashboard. Variables that are not given have the values that
// they have when the dashboard is opened.
func open(t *testing.T, ctx context.Context, d *draw.Dashboard, p draw.Prometheus, given draw.Values, over draw.Span) *view {
	t.Helper()
	values, err := d.Defaults(ctx, p, given, over)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := d.Ask(ctx, p, values, over)
	if err != nil {
		t.Fatal(err)
	}
	return &view{t, d.UID, answers}
}

func (v *view) panel(title string) draw.Answer {
	v.t.Helper()
	for _, a := range v.answers {
		if a.Panel == title && len(a.Targets) > 0 {
			return a
		}
	}
	v.t.Fatalf("%s has no panel %q", v.uid, title)
	return draw.Answer{}
}

// last returns the last value of a series of a panel.
func (v *view) last(title, name string) float64 {
	v.t.Helper()
	names, series, err := v.panel(title).Named()
	if err != nil {
		v.t.Fatal(err)
	}
	for i, s := range series {
		if (names[i] == name || name == "") && len(s.Values) > 0 {
			return s.Values[len(s.Values)-1].V
		}
	}
	v.t.Errorf("%s, panel %q: there is no %q among %q", v.uid, title, name, names)
	return math.NaN()
}

// is compares the last value of a series with what the rollups say.
func (v *view) is(title, name string, want, tolerance float64) {
	v.t.Helper()
	if got := v.last(title, name); !near(got, want, tolerance) {
		v.t.Errorf("%s, panel %q: %s is %v, and by the rollups %v", v.uid, title, name, got, want)
	}
}

func near(got, want, tolerance float64) bool {
	return math.Abs(got-want) <= tolerance*math.Abs(want)+1e-12
}

// latest returns the last rollup of each layer of a run.
func (w *world) latest(name oona.RunID, group oona.Group) map[oona.LayerID]oona.Rollup {
	all := make(map[oona.LayerID]oona.Rollup)
	for _, r := range w.rollups {
		if r.Run == name && r.Group == group && r.End > all[r.Layer].End {
			all[r.Layer] = r
		}
	}
	return all
}

// metric returns the summary of a metric of a rollup.
func metric(t *testing.T, r oona.Rollup, name string) oona.MetricSummary {
	t.Helper()
	i := slices.IndexFunc(r.Metrics, func(m oona.MetricSummary) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("the rollup of %s has no %s", r.Layer, name)
	}
	return r.Metrics[i]
}

// middle returns the bounds of the bucket with a quantile of positive samples.
func middle(q float64, all ...oona.Histogram) (low, high float64) {
	counts, total := make(map[int32]uint64), uint64(0)
	for _, h := range all {
		for i, index := range h.Positive.Indexes {
			counts[index] += h.Positive.Counts[i]
			total += h.Positive.Counts[i]
		}
	}
	var indexes []int32
	for index := range counts {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	below := uint64(0)
	for _, index := range indexes {
		if below += counts[index]; float64(below) >= q*float64(total) {
			return math.Exp2(float64(index-1) / 32), math.Exp2(float64(index) / 32)
		}
	}
	return math.NaN(), math.NaN()
}

// checkNumbers compares panels of each row with what the rollups on the topics say.
func checkNumbers(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard) {
	whole := draw.Values{"__rate_interval": fmt.Sprintf("%ds", int(w.over.To.Sub(w.over.From).Seconds())+5)}
	health, performance := w.latest(run, oona.Health), w.latest(run, oona.Performance)
	active, seen, states := int64(0), int64(0), [oona.StateCount]int64{}
	for _, r := range health {
		active, seen = active+r.Seeds.Active, seen+r.Seeds.Seen
		for s, n := range r.Seeds.ByState {
			states[s] += n
		}
	}
	t.Run("network", func(t *testing.T) {
		v := open(t, ctx, boards["oona-network"], w.native, draw.Values{"metric": "compute_seconds", "__rate_interval": whole["__rate_interval"]}, w.over)
		v.is("Active seeds", "", float64(active), 0)
		v.is("Layers", "", float64(len(layers)), 0)
		for s, n := range states {
			v.is("Seeds by state", oona.State(s).String(), float64(n), 0)
		}
		var samples []oona.Histogram
		for _, r := range w.rollups {
			if r.Run == run && r.Group == oona.Performance {
				samples = append(samples, metric(t, r, "compute_seconds").Histogram)
			}
		}
		recorded := open(t, ctx, boards["oona-network"], w.native, draw.Values{"metric": "compute_seconds", "sums": "run:kasmina"}, w.over)
		for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99} {
			low, high := middle(q, samples...)
			for _, v := range []*view{v, recorded} {
				if got := v.last("Quantiles of compute_seconds", name); got < low*0.98 || got > high*1.02 {
					t.Errorf("%s is %v, and by the rollups %v to %v", name, got, low, high)
				}
			}
		}
		recorded.is("Seeds by state", "CULLED", float64(states[oona.Culled]), 0)
		for _, row := range v.rows("Runs") {
			if want := map[string]float64{run: float64(len(layers)), endedRun: 2}[row.Text["Run"]]; row.Values["Layers"] != want {
				t.Errorf("run %s has %v layers, want %v", row.Text["Run"], row.Values["Layers"], want)
			}
		}
	})
	t.Run("layer", func(t *testing.T) {
		given := draw.Values{"layer": "enc.1", "metric": "dead_fraction", "__rate_interval": whole["__rate_interval"]}
		v := open(t, ctx, boards["oona-layer"], w.native, given, w.over)
		m := metric(t, health["enc.1"], "dead_fraction")
		v.is("Seeds", "", float64(health["enc.1"].Seeds.Seen), 0)
		v.is("Frames per second", "", performance["enc.1"].Rates.FramesPerSecond, 0)
		v.is("Last window of dead_fraction", "mean", m.Mean, 1e-9)
		v.is("Last window of dead_fraction", "least", m.Min, 0)
		v.is("Last window of dead_fraction", "greatest", m.Max, 0)
		rows := v.rows("Worst seeds")
		if len(rows) != len(m.Worst) {
			t.Errorf("%d worst seeds, and in the rollup %d", len(rows), len(m.Worst))
		}
		for i, row := range rows[:min(len(rows), len(m.Worst))] {
			if row.Text["Seed"] != fmt.Sprint(m.Worst[i].Seed) || row.Values["Value"] != m.Worst[i].Value || row.Text["Rank"] != fmt.Sprint(i+1) {
				t.Errorf("worst seed %d is %v, want %v", i+1, row, m.Worst[i])
			}
		}
		var samples []oona.Histogram
		for _, r := range w.rollups {
			if r.Run == run && r.Group == oona.Health && r.Layer == "enc.1" {
				samples = append(samples, metric(t, r, "dead_fraction").Histogram)
			}
		}
		low, high := middle(0.5, samples...)
		if got := v.last("dead_fraction and what is expected", "p50"); got < low*0.98 || got > high*1.02 {
			t.Errorf("the median is %v, and by the rollups %v to %v", got, low, high)
		}
	})
	t.Run("lifecycle", func(t *testing.T) {
		v := open(t, ctx, boards["oona-lifecycle"], w.native, nil, w.over)
		v.is("Seeds", "", float64(seen), 0)
		for name, s := range map[string]oona.State{"fossilized": oona.Fossilized, "culled": oona.Culled, "cancelled": oona.Cancelled, "rolled back": oona.RolledBack} {
			v.is("How seeds end", name, float64(states[s])/float64(seen), 1e-9)
		}
		v.is("Seeds by state", "CULLED", float64(states[oona.Culled]), 0)
		for _, row := range v.rows("Layers") {
			c := health[oona.LayerID(row.Text["Layer"])].Seeds
			if want := float64(c.ByState[oona.Culled]) / float64(c.Seen); !near(row.Values["Culled"], want, 1e-9) {
				t.Errorf("of layer %s %v are culled, want %v", row.Text["Layer"], row.Values["Culled"], want)
			}
		}
	})
	t.Run("oona", func(t *testing.T) { checkSystem(t, ctx, w, boards["oona-system"], whole) })
}

// checkSystem compares rates over the whole time, which Prometheus extrapolates.
func checkSystem(t *testing.T, ctx context.Context, w *world, d *draw.Dashboard, whole draw.Values) {
	v, critical := open(t, ctx, d, w.native, whole, w.over), false
	seconds := w.over.To.Sub(w.over.From).Seconds() + 5
	about := func(title, name string, want float64) {
		t.Helper()
		if got := v.last(title, name) * seconds; !near(got, want, 0.15) {
			t.Errorf("panel %q: %.1f %s, want about %v", title, got, name, want)
		}
	}
	about("Frames and readings", "frames", float64(w.sent.accepted-w.before))
	about("Put aside by aggregators", "late late", float64(w.sent.lates))
	about("Rollups", "read", float64(len(w.rollups)-2*w.before))    // two a frame, at that time
	about("Refused requests", "undecodable", float64(w.sent.lates)) // one with each late frame
	for _, row := range v.rows("Firing alerts") {
		critical = critical || row.Text["Alert"] == "OonaLayerCritical" && row.Text["Layer"] == sick && row.Text["State"] == "firing"
	}
	if !critical {
		t.Errorf("OonaLayerCritical of %s is not among the alerts that fire", sick)
	}
	v.is("Workers", "", 4, 0)
	v.is("Open windows", "open", 0, 0)
	v.is("Size", "layers", float64(len(layers)+2), 0)
	v.is("Partitions", "owned", 2, 0)
}

func (v *view) rows(title string) []draw.Row {
	v.t.Helper()
	_, rows := v.panel(title).Table()
	if len(rows) == 0 {
		v.t.Errorf("%s, panel %q: no rows", v.uid, title)
	}
	return rows
}
