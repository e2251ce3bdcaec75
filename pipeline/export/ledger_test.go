package export_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

func TestRunsBeyondTheCapAreOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns = 2 })
		for i := range 5 {
			f.send(rollup(oona.Health, oona.RunID(fmt.Sprint("r", i)), "enc.0", summarize("weight_norm", float64(i))))
			f.send(rollup(oona.Performance, oona.RunID(fmt.Sprint("r", i)), "enc.0"))
		}
		f.expect(1, "kasmina_layer_health", "run=r1")
		f.expect(3, "kasmina_layer_health", "run=other", "layer=other", "metric=weight_norm")
		f.expect(15, "kasmina_layer_frames_total", "run=other")
		if sum := f.find("kasmina_layer_health", "run=other").Histogram.GetSampleSum(); sum != 2+3+4 {
			t.Errorf("sum of other is %v, want 9", sum)
		}
		f.expect(6, "oona_exporter_folded_series_total", "label=run")
		f.expect(0, "oona_exporter_folded_series_total", "label=layer")
		f.absent("kasmina_layer_seeds_seen", "run=other") // other has no last window that is of one layer
		f.absent("kasmina_layer_health_window_mean", "run=other")
		f.expect(3, "oona_exporter_layers")
	})
}

func TestLayersBeyondTheCapAreOtherOfTheirRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxLayers = 2 })
		for i := range 4 {
			f.send(rollup(oona.Health, "r", oona.LayerID(fmt.Sprint("enc.", i)), summarize("weight_norm", float64(i+1))))
		}
		f.send(rollup(oona.Health, "q", "enc.3", summarize("weight_norm", 1)))
		f.expect(1, "kasmina_layer_health", "run=r", "layer=enc.1")
		f.expect(2, "kasmina_layer_health", "run=r", "layer=other")
		f.expect(1, "kasmina_layer_health", "run=q", "layer=enc.3") // the cap is of a run
		f.expect(2, "oona_exporter_folded_series_total", "label=layer")
		f.absent("kasmina_layer_seeds_seen", "layer=other")
	})
}

func TestMetricsBeyondTheCapAreOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxMetrics = 2 })
		a, b, c := summarize("a", 1), summarize("b", 2, 2), summarize("c", 4, 4, 4)
		d := summarize("d", 8)
		d.NotMeasured, c.NotMeasured = 1, 2
		f.send(rollup(oona.Health, "r", "enc.0", a, b, c, d))
		f.send(rollup(oona.Performance, "r", "enc.1", b, c)) // the cap is of all layers and groups
		f.expect(2, "kasmina_layer_health", "metric=b")
		f.expect(2, "kasmina_layer_performance", "metric=b", "layer=enc.1")
		f.expect(4, "kasmina_layer_health", "metric=other")
		f.expect(3, "kasmina_layer_performance", "metric=other", "layer=enc.1")
		f.expect(3, "kasmina_layer_health_not_measured_total", "metric=other")
		f.expect(3, "oona_exporter_folded_series_total", "label=metric")
		f.expect(2, "kasmina_layer_health_window_mean", "metric=b")
		f.absent("kasmina_layer_health_window_mean", "metric=other")
		f.absent("kasmina_layer_health_window_mean", "metric=c")
		f.expect(10, "kasmina_layer_seeds_seen", "layer=enc.0") // the layer's own gauges stand

		h := f.find("kasmina_layer_health", "metric=other").Histogram
		if err := consistent(h); err != nil {
			t.Error(err)
		}
		if h.GetSampleSum() != 3*4+8 {
			t.Errorf("sum of other is %v, want 20", h.GetSampleSum())
		}
	})
}

// A client may name a run "other". Its sums are then added to the sums of the merged runs.
func TestNamedOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns, c.MaxLayers, c.MaxMetrics = 1, 1, 1 })
		f.send(rollup(oona.Health, "other", "enc.0", summarize("other", 1)))
		f.send(rollup(oona.Health, "r", "other", summarize("other", 1)))
		f.send(rollup(oona.Health, "r", "enc.0", summarize("a", 1), summarize("other", 1)))
		f.send(rollup(oona.Health, "r", "enc.1", summarize("a", 1), summarize("b", 1)))
		f.send(rollup(oona.Health, "q", "enc.0", summarize("b", 1)))
		f.send(rollup(oona.Health, "r", "enc.0", summarize("other", 1)))
		f.expect(2, "kasmina_layer_health", "run=other", "layer=other", "metric=other")
		f.expect(2, "kasmina_layer_health", "run=r", "layer=other", "metric=other")
		f.expect(1, "kasmina_layer_health", "run=r", "layer=other", "metric=a")
		f.expect(1, "kasmina_layer_health", "run=r", "layer=enc.0", "metric=a")
		f.expect(2, "kasmina_layer_health", "run=r", "layer=enc.0", "metric=other")
		f.absent("kasmina_layer_health_window_mean", "metric=other")
		f.expect(2, "oona_exporter_folded_series_total", "label=run")
		f.expect(2, "oona_exporter_folded_series_total", "label=layer")
		f.expect(6, "oona_exporter_folded_series_total", "label=metric")
	})
}

func TestSilentLayersDisappearAndFreeTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) {
			c.MaxRuns, c.MaxLayers, c.MaxMetrics = 1, 1, 1
			c.SilentAfter = time.Minute
		})
		f.send(rollup(oona.Health, "r", "enc.0", summarize("a", 1, 1, 1)))
		created := f.find("kasmina_layer_health", "layer=enc.0").Histogram.CreatedTimestamp.AsTime()
		time.Sleep(time.Minute)
		f.expect(3, "kasmina_layer_health", "layer=enc.0")
		time.Sleep(time.Second)
		for name := range f.gather() {
			if strings.HasPrefix(name, "kasmina_layer_") {
				t.Errorf("%s is still shown", name)
			}
		}

		f.send(rollup(oona.Health, "q", "dec.0", summarize("b", 1)))
		f.expect(1, "kasmina_layer_health", "run=q", "layer=dec.0", "metric=b")
		for _, label := range []string{"run", "layer", "metric"} {
			f.expect(0, "oona_exporter_folded_series_total", "label="+label)
		}

		time.Sleep(61 * time.Second)
		f.send(rollup(oona.Health, "r", "enc.0", summarize("a", 1, 1)))
		back := f.find("kasmina_layer_health", "layer=enc.0").Histogram
		if back.GetSampleCount() != 2 || !back.CreatedTimestamp.AsTime().After(created) {
			t.Errorf("came back with count %d, created %v (before: %v); want 2 and a later time", back.GetSampleCount(), back.CreatedTimestamp.AsTime(), created)
		}
	})
}

// A trainer whose clock is ahead has windows that end in the future: its layer
// is as silent as others once nothing comes.
func TestSilenceIsJudgedByArrivalToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter = time.Minute })
		f.send(ended(-time.Minute, oona.Health, "r", "enc.0"))
		f.expect(10, "kasmina_layer_seeds_seen")
		time.Sleep(61 * time.Second)
		f.absent("kasmina_layer_seeds_seen")
	})
}

// Places become free without a scrape.
func TestPlacesBecomeFreeWithoutAScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns = 1; c.SilentAfter = time.Minute })
		f.send(rollup(oona.Health, "r", "enc.0"))
		time.Sleep(2 * time.Minute)
		f.send(rollup(oona.Health, "q", "enc.0", summarize("a", 1)))
		f.expect(1, "kasmina_layer_health", "run=q")
	})
}

// A window is old if it ended long ago, even if its rollup has just arrived: a
// restarted exporter reads rollups that are hours old.
func TestOldWindowsAreNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter = time.Minute; c.MaxLayers = 1 })
		f.send(ended(time.Hour, oona.Health, "r", "gone", summarize("a", 1)))
		f.absent("kasmina_layer_health")
		f.expect(1, "oona_exporter_stale_total", "group=health")
		f.send(ended(50*time.Second, oona.Health, "r", "enc.0", summarize("a", 1)))
		f.expect(1, "kasmina_layer_health", "layer=enc.0") // the old one took no place
		time.Sleep(11 * time.Second)
		f.absent("kasmina_layer_health")
		if got, want := f.stage.Counts(), (export.Counts{Rollups: 2}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

// A timeline whose windows are far behind adds to the sums of a layer that
// another timeline keeps alive, and does not turn its last window back.
func TestLastWindowNeverGoesBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter = time.Minute })
		f.send(rollup(oona.Health, "r", "enc.0", summarize("a", 1)))
		f.send(ended(10*time.Second, oona.Health, "r", "enc.0", summarize("a", 2)))
		f.send(ended(time.Hour, oona.Health, "r", "enc.0", summarize("a", 4)))
		f.expect(3, "kasmina_layer_health")
		f.expect(1, "kasmina_layer_health_window_mean")
		f.expect(float64(time.Now().Unix()), "kasmina_layer_health_window_end_timestamp_seconds")
		f.expect(0, "oona_exporter_stale_total", "group=health")
	})
}
