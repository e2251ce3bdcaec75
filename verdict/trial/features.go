package trial

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// The features are the series that a dashboard has of a layer: the means of the metrics,
// as logarithms to the base 2, and three more.
const (
	notMeasured  = metrics + iota // share of the loss that is NaN
	seen                          // seeds, as a logarithm
	speed                         // steps per second, as a logarithm
	featureCount = metrics + 3
)

// sides says on which side a feature is bad: 1 above, -1 below, 0 both.
var sides = [featureCount]float64{loss: 1, dead: 1, compute: 1, notMeasured: 1, seen: -1, speed: -1}

// features are those of a window. NaN stands for none.
type features [featureCount]float64

func featuresOf(r *oona.Rollup) features {
	var f features
	for i := range f {
		f[i] = math.NaN()
	}
	for i := range r.Metrics {
		s := &r.Metrics[i]
		m := slices.Index(metricNames[:], s.Name)
		switch {
		case m < 0:
			continue
		case m == dead && s.Count > 0:
			f[m] = s.Mean
		case s.Count > 0:
			f[m] = math.Log2(max(s.Mean, 1e-30))
		}
		if m == loss {
			f[notMeasured] = float64(s.NotMeasured) / float64(max(1, s.NotMeasured+s.Count))
		}
	}
	if r.Group == oona.Health {
		f[seen] = math.Log2(float64(max(1, r.Seeds.Seen)))
	} else if r.SpeedKnown() {
		f[speed] = math.Log2(max(r.Rates.StepsPerSecond, 1e-6))
	}
	return f
}

// badness is how far x is beyond the bounds, in scales. It is negative within them.
func badness(feature int, x, low, high, scale float64) float64 {
	above, below := (x-high)/scale, (low-x)/scale
	switch sides[feature] {
	case 1:
		return above
	case -1:
		return below
	}
	return max(above, below)
}

// Fixed compares each feature with bounds that are the same for all layers and runs: those
// within which 98% of the windows of clean runs were.
type Fixed struct {
	samples          [featureCount][]float64
	low, high, scale [featureCount]float64
}

// Learn takes a rollup of a clean run.
func (d *Fixed) Learn(r *oona.Rollup) {
	for i, x := range featuresOf(r) {
		if x == x {
			d.samples[i] = append(d.samples[i], x)
		}
	}
}

// Learnt ends the learning.
func (d *Fixed) Learnt() {
	for i, s := range d.samples {
		if len(s) == 0 {
			continue
		}
		slices.Sort(s)
		at := func(q float64) float64 { return s[int(q*float64(len(s)-1))] }
		d.low[i], d.high[i], d.scale[i] = at(.01), at(.99), max(leastScale, (at(.84)-at(.16))/2)
		d.samples[i] = nil
	}
}

// leastScale keeps a feature that hardly varies from deciding everything: a tenth of an octave.
const leastScale = .1

// Score says how bad a rollup is. An alarm is a score above a threshold.
func (d *Fixed) Score(r *oona.Rollup) float64 {
	worst := math.Inf(-1)
	for i, x := range featuresOf(r) {
		if x == x && d.scale[i] > 0 {
			worst = max(worst, badness(i, x, d.low[i], d.high[i], d.scale[i]))
		}
	}
	return worst
}

// ZScore compares each feature of a layer with its own mean and standard deviation, which follow
// it exponentially. Values count for at most five deviations, so that a spike does not
// hide what follows.
type ZScore struct {
	n              [featureCount]int
	mean, variance [featureCount]float64
}

const (
	zLearns = 25  // values before there is a score
	zKeeps  = .97 // of the mean and the variance, at each value
	zClip   = 5   // deviations
)

// Score says how bad a rollup of the layer is, and learns from it.
func (d *ZScore) Score(r *oona.Rollup) float64 {
	worst := math.Inf(-1)
	for i, x := range featuresOf(r) {
		if x != x {
			continue
		}
		d.n[i]++
		gain := max(1-zKeeps, 1/float64(d.n[i]))
		deviation := max(math.Sqrt(d.variance[i]), leastScale)
		e := x - d.mean[i]
		if d.n[i] > zLearns {
			worst = max(worst, badness(i, e, 0, 0, deviation))
			e = max(-zClip*deviation, min(zClip*deviation, e))
		}
		d.mean[i] += gain * e
		d.variance[i] = (1 - gain) * (d.variance[i] + gain*e*e)
	}
	return worst
}
