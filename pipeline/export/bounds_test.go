package export_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

// Rollups of 10,000 layers, of 1,000 runs and of 200 metrics, at the default
// caps: the exposition is within the caps and does not grow with more layers, runs and
// metrics. These are merged and counted, so that nothing is lost.
func TestExpositionIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := export.DefaultConfig()
		f := start(t, nil)
		windows := int64(0)
		send := func(run, layer, metric int) {
			name := fmt.Sprintf("metric-%03d", metric)
			id := oona.LayerID(fmt.Sprintf("layer.%05d", layer))
			f.send(rollup(oona.Performance, oona.RunID(fmt.Sprintf("run-%04d", run)), id, summarize(name, 1, 2)))
			f.sent, f.sentTo = nil, nil // not to be counted as the exporter's memory
			windows++
		}
		for layer := range 10_000 {
			send(0, layer, layer%200)
		}
		for run := range 40 {
			for layer := range 50 {
				send(run, layer, 0)
			}
		}
		before, shown := heapInUse(), f.value("oona_exporter_series")
		for run := range 1_000 {
			for layer := range 10 {
				send(run, 100+layer, run%200)
			}
		}
		grown := heapInUse() - before
		families := f.gather()
		layers := families["oona_exporter_layers"].Metric[0].Gauge.GetValue()
		t.Logf("%d windows: %v layers, %v series, %d bytes more", windows, layers, shown, grown)
		if most := cfg.MaxTotalLayers + cfg.MaxRuns + 1; layers > float64(most) || layers < float64(cfg.MaxTotalLayers) {
			t.Errorf("%v layers are shown, want %d and at most one of each run that merges others", layers, cfg.MaxTotalLayers)
		}
		// Layers that are shown may get metrics that they did not have: up to the
		// cap of layers times the cap of metrics.
		if now := families["oona_exporter_series"].Metric[0].Gauge.GetValue(); now > 1.5*shown {
			t.Errorf("%v series are shown, %v before 10,000 more windows", now, shown)
		}
		if grown > 8<<20 {
			t.Errorf("the heap grew by %d bytes with what is merged", grown)
		}
		if got := total(families["kasmina_layer_frames_total"]); got != float64(5*windows) {
			t.Errorf("%v frames are shown in all, of %d", got, 5*windows)
		}
		labels := map[string]map[string]bool{}
		for _, m := range families["kasmina_layer_performance"].Metric {
			for _, l := range m.Label {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
		for label, most := range map[string]int{"run": cfg.MaxRuns, "layer": cfg.MaxTotalLayers, "metric": cfg.MaxMetrics} {
			if n := len(labels[label]); n > most+1 || !labels[label]["other"] {
				t.Errorf("label %s has %d values, want at most %d and other", label, n, most)
			}
			if f.value("oona_exporter_folded_series_total", "label="+label) == 0 {
				t.Errorf("what was merged beyond the cap of %s is not counted", label)
			}
		}
	})
}

// Layers of all runs together are capped, and a place that becomes free is
// another's.
func TestLayersInAllBeyondTheCapAreOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxTotalLayers = 3 })
		for _, run := range []oona.RunID{"q", "r"} {
			for layer := range 2 {
				f.send(rollup(oona.Health, run, oona.LayerID(fmt.Sprint("enc.", layer)), summarize("weight_norm", 1)))
			}
		}
		f.expect(1, "kasmina_layer_health", "run=q", "layer=enc.1")
		f.expect(1, "kasmina_layer_health", "run=r", "layer=enc.0")
		f.expect(1, "kasmina_layer_health", "run=r", "layer=other")
		f.expect(1, "oona_exporter_folded_series_total", "label=layer")
		f.expect(4, "oona_exporter_layers")

		time.Sleep(export.DefaultConfig().SilentAfter + time.Second) // all are silent
		for layer := range 3 {
			f.send(rollup(oona.Health, "s", oona.LayerID(fmt.Sprint("enc.", layer)), summarize("weight_norm", 1)))
		}
		f.expect(1, "kasmina_layer_health", "run=s", "layer=enc.2")
		f.expect(1, "oona_exporter_folded_series_total", "label=layer")
	})
}

func total(family *dto.MetricFamily) (sum float64) {
	for _, m := range family.GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	return sum
}

// heapInUse returns the bytes that live objects take.
func heapInUse() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
