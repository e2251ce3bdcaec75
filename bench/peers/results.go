package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// The aggregates that each peer computes, for each metric of each layer.
var outputs = []string{"count", "sum", "min", "max", "mean", "deviation", "0.5", "0.9", "0.99"}

var quantiles = []float64{0.5, 0.9, 0.99}

// results has the aggregates that a peer has emitted.
type results map[result]float64

type result struct {
	window        int
	layer, metric string
	output        string
}

// check compares the results with the samples. Counts must be equal, sums and the like must
// be equal except for rounding, and quantiles must have about the right rank.
func (r results) check(windows []window) error {
	want := 0
	for i, w := range windows {
		for series, values := range w.samples() {
			if err := r.checkOne(result{window: i, layer: string(series.layer), metric: series.metric}, values); err != nil {
				return fmt.Errorf("window %d, %s of %s: %w", i, series.metric, series.layer, err)
			}
			want += len(outputs)
		}
	}
	if len(r) != want {
		return fmt.Errorf("%d aggregates were emitted, want %d", len(r), want)
	}
	return nil
}

// rankError is the tolerance for the rank of a quantile. VictoriaMetrics keeps 1,000 random
// values, and the rank of their median has a standard error of 0.016.
const rankError = 0.08

func (r results) checkOne(key result, values []float64) error {
	slices.Sort(values)
	count := float64(len(values))
	var sum, squares float64
	for _, x := range values {
		sum += x
	}
	for _, x := range values {
		squares += (x - sum/count) * (x - sum/count)
	}
	scale := max(-values[0], values[len(values)-1])
	for _, c := range []struct {
		output string
		want   float64
		within float64
	}{
		{"count", count, 0},
		{"sum", sum, 1e-6 * scale * count},
		{"min", values[0], 1e-6 * scale},
		{"max", values[len(values)-1], 1e-6 * scale},
		{"mean", sum / count, 1e-6 * scale},
		{"deviation", math.Sqrt(squares / count), scale / count}, // by n or by n-1
	} {
		key.output = c.output
		if got, ok := r[key]; !ok || !(math.Abs(got-c.want) <= c.within) {
			return fmt.Errorf("its %s is %v (emitted: %t), want %v", c.output, got, ok, c.want)
		}
	}
	for _, q := range quantiles {
		key.output = fmt.Sprint(q)
		got, ok := r[key]
		rounding := 1e-6 * math.Abs(got)
		least, _ := slices.BinarySearch(values, got-rounding)
		most, _ := slices.BinarySearch(values, got+rounding) // equal values have several ranks
		outside := got < values[0]-1e-6*scale || got > values[len(values)-1]+1e-6*scale
		if !ok || outside || float64(least)/count > q+rankError || float64(most)/count < q-rankError {
			return fmt.Errorf("its quantile %v is %v (emitted: %t), of ranks %d to %d of %d", q, got, ok, least, most, len(values))
		}
	}
	return nil
}

type series struct {
	layer  oona.LayerID
	metric string
}

// samples returns the values of the window by layer and metric.
func (w window) samples() map[series][]float64 {
	out := make(map[series][]float64)
	for i := range w {
		for _, c := range w[i].Metrics {
			key := series{w[i].Layer, c.Name}
			for _, x := range c.Values {
				out[key] = append(out[key], float64(x))
			}
		}
	}
	return out
}
