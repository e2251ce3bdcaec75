package export_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

// windowLength is how far apart the windows of rollup are.
const windowLength = 10 * time.Second

// windows sends n windows of each layer, in time. Their gradient norms are samples of
// about one, times so many.
func (f *fixture) windows(n int, times float64, run oona.RunID, layers ...oona.LayerID) {
	f.t.Helper()
	for range n {
		time.Sleep(windowLength)
		for _, layer := range layers {
			health := rollup(oona.Health, run, layer, normal(times))
			health.Reducer = 2 // which counts the values that are due
			f.sendWindow(health)
			f.sendWindow(rollup(oona.Performance, run, layer, summarize("compute_seconds", 0.5, 0.5, 0.5)))
		}
	}
}

// normal are gradient norms of about one, times so many. The greatest depends on the time,
// as samples that repeat are a fault.
func normal(times float64) oona.MetricSummary {
	return summarize("gradient_norm", 0.9*times, times, times, 1.1*times+float64(time.Now().Unix()%1000)/1024/1024)
}

// A layer that was well becomes critical: the verdict, its reason, and the range that was
// expected are shown, by a restarted exporter, too.
func TestVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.windows(5, 1, "r", "a", "b")
		f.absent("kasmina_layer_verdict", "layer=a") // nothing is learnt
		f.windows(7, 1, "r", "a", "b")
		f.expect(0, "kasmina_layer_verdict", "layer=a")
		f.absent("kasmina_layer_verdict_reason")
		f.absent("kasmina_layer_verdict_changes_total")
		low, high := f.value("kasmina_layer_health_expected_low", "layer=a"), f.value("kasmina_layer_health_expected_high", "layer=a")
		if median := f.value("kasmina_layer_health_window_median", "layer=a"); low >= 0.6 || high <= 1.6 || math.Abs(median-1) > 0.03 {
			t.Errorf("the median is %v, expected %v to %v", median, low, high)
		}

		f.windows(3, 100, "r", "a")
		f.windows(1, 1, "r", "b")
		second := startOn(t, f.tape.again(t), nil)
		second.tape.read(t)
		for _, f := range []*fixture{f, second} {
			f.expect(2, "kasmina_layer_verdict", "run=r", "layer=a")
			f.expect(2, "kasmina_layer_verdict_reason", "run=r", "layer=a", "metric=gradient_norm", "kind=high")
			if after := f.value("kasmina_layer_health_expected_high", "layer=a", "metric=gradient_norm"); after > 1.5*high {
				t.Errorf("expected at most %v, and then %v", high, after)
			}
			if since := time.Now().Unix() - 40; f.value("kasmina_layer_verdict_since_timestamp_seconds", "layer=a") != float64(since) {
				t.Errorf("since %v, want %d", f.value("kasmina_layer_verdict_since_timestamp_seconds", "layer=a"), since)
			}
			f.expect(0, "kasmina_layer_verdict", "layer=b")
			f.absent("kasmina_layer_verdict_reason", "layer=b", "metric=gradient_norm")
		}
		f.expect(1, "kasmina_layer_verdict_changes_total", "layer=a", "verdict=critical")
		f.absent("kasmina_layer_verdict_changes_total", "layer=b")
		second.absent("kasmina_layer_verdict_changes_total")

		f.windows(4, 1, "r", "a", "b")
		f.expect(0, "kasmina_layer_verdict", "layer=a")
		f.expect(1, "kasmina_layer_verdict_changes_total", "layer=a", "verdict=ok")
		second.expect(1, "kasmina_layer_verdict_changes_total", "layer=a", "verdict=ok")
	})
}

// An exporter that starts learns from windows that are too old to be shown.
func TestVerdictAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, nil)
		for i := range 200 { // more than half an hour, in which the loss does not fall
			loss := summarize("reconstruction_loss", 1, 1, 1+float64(i)/1024)
			time.Sleep(windowLength)
			first.sendWindow(rollup(oona.Health, "r", "a", loss))
		}
		for range 2 {
			time.Sleep(windowLength)
			first.sendWindow(rollup(oona.Health, "r", "a", summarize("reconstruction_loss", 3, 3, 3.5)))
		}
		second := startOn(t, first.tape.again(t), nil)
		second.tape.read(t)
		for _, name := range []string{
			"kasmina_layer_verdict", "kasmina_layer_verdict_since_timestamp_seconds", "kasmina_layer_verdict_reason",
			"kasmina_layer_health_expected_high", "kasmina_layer_health_best_age_windows",
		} {
			second.expect(first.value(name, "layer=a"), name, "layer=a")
		}
	})
}

// A layer that falls silent is compared with what it was when it comes back.
func TestVerdictOfALayerThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter = 30 * time.Second })
		f.windows(20, 1, "r", "a", "b")
		f.windows(5, 1, "r", "b")
		f.absent("kasmina_layer_verdict", "layer=a")
		f.windows(6, 1000, "r", "a", "b")
		f.expect(2, "kasmina_layer_verdict", "layer=a")
	})
}

// A layer that stands still has a reason, while it is shown and until the run has ended.
func TestStalledLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.windows(10, 1, "r", "a", "b")
		f.windows(2, 1, "r", "b")
		f.absent("kasmina_layer_verdict_reason")
		f.windows(1, 1, "r", "b")
		f.expect(1, "kasmina_layer_verdict_reason", "layer=a", "kind=stalled", "metric=")
		f.expect(1, "kasmina_layer_verdict", "layer=a")
		f.expect(0, "kasmina_layer_verdict", "layer=b")
		f.windows(1, 1, "other run", "a")
		f.expect(0, "kasmina_layer_verdict", "run=r", "layer=b")

		f.stage.End(&oona.RunEnd{Run: "r", At: oona.MicrosOf(time.Now())}, time.Now(), time.Now())
		f.absent("kasmina_layer_verdict_reason")
		f.expect(0, "kasmina_layer_verdict", "run=r", "layer=a")
	})
}

// Layers beyond a limit have no verdict together, and the number of judges is bounded.
func TestMergedLayersHaveNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxLayers, c.MaxTotalLayers = 1, 1 })
		f.windows(10, 1, "r", "a", "b")
		f.expect(0, "kasmina_layer_verdict", "layer=a")
		f.absent("kasmina_layer_verdict", "layer=other")
		f.absent("kasmina_layer_verdict", "layer=b")
		for i := range 10 { // that are too old to be shown
			f.sendWindow(ended(time.Hour, oona.Health, "r", oona.LayerID(fmt.Sprintf("old.%d", i)), normal(1)))
		}
		if n := f.stage.Judges(); n != 2 {
			t.Errorf("there are %d judges, want one of a layer that is shown and one of another", n)
		}
		f.windows(3, 100, "r", "a")
		f.expect(2, "kasmina_layer_verdict", "layer=a")
	})
}

// well makes the i-th rollup of layerRollups one of a layer that is well: its values do not
// repeat, and few units are dead.
func well(r *oona.Rollup, i int) {
	r.Reducer = 2
	for k := range r.Metrics {
		if m := &r.Metrics[k]; m.Name == "dead_fraction" {
			few := samples(1000)
			for k := range few {
				few[k] /= 200
			}
			worst := m.Worst
			*m = summarize(m.Name, few...)
			m.Worst = worst
		} else {
			m.Mean += float64(i) / 1e9
		}
	}
}

// The verdict costs at most eight series for each layer that is well, with the metrics of
// the built-in catalogue.
func TestSeriesOfTheVerdict(t *testing.T) {
	names := []string{"verdict", "verdict_reason", "verdict_since_timestamp_seconds", "verdict_changes_total"}
	for _, g := range []string{"health", "performance"} {
		names = append(names, g+"_window_median", g+"_expected_low", g+"_expected_high", g+"_best_age_windows")
	}
	for expected, want := range map[string]int{"": 8, "none": 2, "all": 16} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, func(c *export.Config) {
				if expected != "" {
					c.Expected = []string{expected}
				}
			})
			for i := range 20 {
				time.Sleep(windowLength)
				for _, r := range layerRollups("a") {
					well(r, i)
					f.sendWindow(r)
				}
			}
			n := 0
			for _, name := range names {
				n += len(f.gather()["kasmina_layer_"+name].GetMetric())
			}
			if n != want {
				t.Errorf("%d series with --series-expected %q, want %d", n, expected, want)
			}
		})
	}
}
