package export_test

import (
	"testing"
	"testing/synctest"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

// sendAt appends the rollup of a window that ends some seconds after the layer's
// first. The record at the trigger has closed it.
func (f *fixture) sendAt(g oona.Group, seconds int64, at oona.Trigger) {
	f.t.Helper()
	r := rollup(g, "r", "enc.0", summarize("weight_norm", float64(seconds)))
	r.End += oona.Micros(seconds) * 1e6
	r.Start = r.End - 10e6
	r.Trigger, r.FirstOffset, r.LastOffset = at, at.Offset-5, at.Offset-1
	r.Hash = r.ContentHash()
	f.append(topics.Rollup(g), 0, avro.AppendRollup(nil, r))
}

// A log that lost its end or was made again has lower offsets than before. With its
// new incarnation, the rollups count.
func TestRollupsOfANewIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		for _, g := range []oona.Group{oona.Health, oona.Performance} {
			f.sendAt(g, 0, oona.Trigger{Offset: 9_000})
			f.sendAt(g, 10, oona.Trigger{Offset: 9_100})
			f.sendAt(g, 20, oona.Trigger{Incarnation: 7, Offset: 30})
			f.sendAt(g, 20, oona.Trigger{Incarnation: 7, Offset: 30})
			f.sendAt(g, 30, oona.Trigger{Incarnation: 7, Offset: 40})
		}
		f.expect(20, "kasmina_layer_frames_total")
		f.expect(30, "kasmina_layer_health_window_mean")
		f.expect(1, "oona_exporter_incarnations_total", "group=health")
		f.expect(1, "oona_exporter_repeats_total", "group=performance")
		if got, want := f.stage.Counts(), (export.Counts{Rollups: 8, Repeats: 2, Incarnations: 2}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

// Without a new incarnation its rollups are dropped, and it is not called a
// repeat, nor a conflict of two aggregators.
func TestLogMadeAgainWithoutAnIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.sendAt(oona.Health, 0, oona.Trigger{Offset: 9_000})
		f.sendAt(oona.Health, 10, oona.Trigger{Offset: 9_100})
		f.sendAt(oona.Health, 10, oona.Trigger{Offset: 20})
		f.sendAt(oona.Health, 20, oona.Trigger{Offset: 30})
		f.sendAt(oona.Health, 30, oona.Trigger{Offset: 40})
		f.expect(10, "kasmina_layer_health_window_mean")
		f.expect(1, "oona_exporter_remade_total", "group=health")
		f.expect(2, "oona_exporter_behind_total", "group=health")
		if got, want := f.stage.Counts(), (export.Counts{Rollups: 2, Remade: 1, Behind: 2}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

// A speed that the window does not tell is not 0.
func TestUnknownSpeedIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		r := rollup(oona.Performance, "r", "enc.0")
		r.Reducer, r.Rates.StepsPerSecond = 2, 0
		f.send(r)
		f.absent("kasmina_layer_window_steps_per_second")
		f.expect(0.5, "kasmina_layer_window_frames_per_second")

		r = rollup(oona.Performance, "r", "enc.0")
		r.Reducer, r.Rates.StepsPerSecond, r.Rates.Steps, r.Rates.StepTime = 2, 0, 0, 2_000_000 // it stands still
		f.send(r)
		f.expect(0, "kasmina_layer_window_steps_per_second")
	})
}
