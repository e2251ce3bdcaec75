package main

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/verdict/trial"
)

var verdictSpeed = figure{name: "verdict_rollups", unit: "k rollups/s", goal: 200,
	about: "judge rollups of health with five metrics of 300 seeds, by processor time and core"}

// judgedLayers is the number of layers that are judged in turns, and judgedRuns the number
// of runs, one after the other.
const judgedLayers, judgedRuns = 1024, 5

// healthyLayer returns the rollups of health of a layer without a fault: five metrics of
// 300 seeds, of which about half are active.
func healthyLayer() ([]*oona.Rollup, error) {
	run := trial.New(trial.OneSeed, trial.Tuning.Seed(trial.OneSeed, 0))
	var rollups []*oona.Rollup
	var failed error
	layer := oona.LayerID("enc.0")
	if run.Fault == layer {
		layer = "enc.1"
	}
	err := run.Fold(func(r *oona.Rollup) {
		if r.Layer != layer || r.Group != oona.Health || failed != nil {
			return
		}
		var kept *oona.Rollup // r is valid only now
		if kept, failed = layerseries.Decode(r.Group, avro.AppendRollup(nil, r)); failed == nil {
			rollups = append(rollups, kept)
		}
	})
	if err == nil {
		err = failed
	}
	if err == nil && len(rollups) != trial.Windows {
		err = fmt.Errorf("there are %d rollups of %d windows", len(rollups), trial.Windows)
	}
	return rollups, err
}

// measureVerdict judges runs whose layers all have these rollups.
func measureVerdict(rollups []*oona.Rollup, layers, runs int, into *figures) error {
	known, err := catalogue.Default()
	if err != nil {
		return err
	}
	var spent time.Duration
	for range runs {
		run, names := verdict.NewRun(known.Rule), layerNames(layers)
		used, _, err := metered(func() error { return judge(run, rollups, names) })
		if err == nil {
			err = judged(run, layers, rollups[len(rollups)-1].End)
		}
		if err != nil {
			return err
		}
		spent += used
	}
	into.take(verdictSpeed, float64(len(rollups)*layers*runs)/spent.Seconds()/1e3)
	return nil
}

// judge does what the exporter does with each rollup: observe it and ask for the verdict.
func judge(run *verdict.Run, rollups []*oona.Rollup, layers []oona.LayerID) error {
	for _, window := range rollups {
		r := *window
		for _, r.Layer = range layers {
			run.Observe(&r)
			if _, known := run.At(r.Layer, 0); !known {
				return fmt.Errorf("layer %s is not known after its rollup", r.Layer)
			}
		}
	}
	return nil
}

// judged checks that each layer has a verdict, of a window with this end.
func judged(run *verdict.Run, layers int, end oona.Micros) error {
	all := run.Layers(0)
	if len(all) != layers {
		return fmt.Errorf("%d layers have a verdict, want %d", len(all), layers)
	}
	for _, l := range all {
		if l.Learning || l.End != end {
			return fmt.Errorf("the verdict on layer %s is of the window that ends at %d, want %d; still learning: %t", l.Name, l.End, end, l.Learning)
		}
	}
	return nil
}

func layerNames(n int) []oona.LayerID {
	names := make([]oona.LayerID, n)
	for i := range names {
		names[i] = oona.LayerID(fmt.Sprintf("encoder.%04d", i))
	}
	return names
}
