package verdict_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

// change returns the values of a column with a fault, or nil if the column has none. window counts
// from the beginning of the fault.
type change func(metric string, values []float32, window int) []float32

// times multiplies the values of a metric.
func times(metric string, by func(window int) float64) change {
	return func(name string, values []float32, window int) []float32 {
		if name != metric {
			return nil
		}
		values = slices.Clone(values)
		for i := range values {
			values[i] *= float32(by(window))
		}
		return values
	}
}

func by(x float64) func(int) float64 { return func(int) float64 { return x } }

// set replaces the measured values of the seeds that which selects.
func set(value func(old float32) float32, which func(i int) bool, metrics ...string) change {
	return func(name string, values []float32, _ int) []float32 {
		if !slices.Contains(metrics, name) {
			return nil
		}
		values = slices.Clone(values)
		n := 0
		for i, v := range values {
			if v == v {
				if which(n) {
					values[i] = value(v)
				}
				n++
			}
		}
		return values
	}
}

func constant(x float32) func(float32) float32 { return func(float32) float32 { return x } }

// inject returns frames with a fault in one layer, in windows from to to.
func inject(frames []*oona.Frame, layer oona.LayerID, length oona.Micros, from, to int, fault change) []*oona.Frame {
	first := frames[0].ObservedAt / length
	out := slices.Clone(frames)
	for i, f := range out {
		window := int(f.ObservedAt/length - first)
		if f.Layer != layer || window < from || window >= to {
			continue
		}
		copied := *f
		copied.Metrics = slices.Clone(f.Metrics)
		for k, c := range copied.Metrics {
			if values := fault(c.Name, c.Values, window-from); values != nil {
				copied.Metrics[k].Values = values
			}
		}
		out[i] = &copied
	}
	return out
}

// Faults that are put into the recorded run are found while they last.
func TestFaultsInRecordedRun(t *testing.T) {
	const length = 2 * time.Second
	frames, known := recorded(t), builtIn(t)
	layers := map[oona.LayerID]bool{}
	for _, f := range frames {
		layers[f.Layer] = true
	}
	nan := float32(math.NaN())
	for name, tt := range map[string]struct {
		fault change
		kind  verdict.Kind
		least int // of nine
	}{
		"gradient x 100":    {times("gradient_norm", by(100)), verdict.High, 9},
		"gradient / 100":    {times("gradient_norm", by(.01)), verdict.Low, 9},
		"gradient grows":    {times("gradient_norm", func(w int) float64 { return math.Exp2(min(float64(w)/2, 10)) }), verdict.High, 2},
		"loss x 3":          {times("reconstruction_loss", by(3)), verdict.High, 9},
		"variance / 1000":   {times("activation_variance", by(.001)), verdict.Low, 9},
		"two thirds NaN":    {set(constant(nan), func(i int) bool { return i%3 != 0 }, "gradient_norm", "reconstruction_loss"), verdict.NotMeasured, 9},
		"three fifths dead": {set(constant(1), func(i int) bool { return i%5 < 3 }, "dead_fraction"), verdict.Dead, 9},
		"one seed x 10000":  {set(func(v float32) float32 { return v * 1e4 }, func(i int) bool { return i == 0 }, "gradient_norm"), verdict.Outlier, 9},
		"infinite":          {set(constant(float32(math.Inf(1))), func(i int) bool { return i == 0 }, "gradient_norm"), verdict.Infinite, 9},
	} {
		found, kinds := 0, 0
		for layer := range layers {
			for _, from := range []int{16, 24, 33} {
				run, on, kind := verdict.NewRun(known.Rule), false, false
				faulty := inject(frames, layer, oona.Micros(length.Microseconds()), from, from+10, tt.fault)
				start := frames[0].ObservedAt / 2e6 * 2e6
				fold(t, faulty, length, 2, known, func(r *oona.Rollup) {
					run.Observe(r)
					v, _ := run.At(r.Layer, run.Now())
					window := int((r.Start - start) / 2e6)
					if window < from || window >= from+10 || r.Layer != layer {
						if v.Level != verdict.OK && (r.Layer != layer || window < from) {
							t.Errorf("%s: %s, where there is no fault, is %v", name, r.Layer, v.Reasons)
						}
						return
					}
					on = on || v.Level != verdict.OK
					kind = kind || slices.ContainsFunc(v.Reasons, func(r verdict.Reason) bool { return r.Kind == tt.kind })
				})
				if on {
					found++
				}
				if kind {
					kinds++
				}
			}
		}
		t.Logf("%-18s found %d of 9, as %v %d", name, found, tt.kind, kinds)
		if found < tt.least || kinds < tt.least {
			t.Errorf("%s: found in %d of 9 runs, and as %v in %d; want %d", name, found, tt.kind, kinds, tt.least)
		}
	}
}
