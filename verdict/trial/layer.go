package trial

import (
	"math"
	"math/rand/v2"

	"github.com/morphogenetic/oona"
)

// The metrics of a frame, in the order of their columns.
const (
	loss = iota
	gradient
	variance
	dead
	weight
	compute
	metrics
)

var metricNames = [metrics]string{"reconstruction_loss", "gradient_norm", "activation_variance", "dead_fraction", "weight_norm", "compute_seconds"}

// Metric describes a metric to the window engine.
func Metric(name string) oona.Metric {
	m := oona.Metric{Name: name, Group: oona.Health}
	switch name {
	case metricNames[loss], metricNames[dead]:
		m.Direction = oona.LowerIsBetter
	case metricNames[compute]:
		m.Group, m.Direction = oona.Performance, oona.LowerIsBetter
	}
	return m
}

// layer is a layer of a run. Levels are logarithms to the base 2.
type layer struct {
	name  oona.LayerID
	rng   *rand.Rand
	seeds []seed

	base, noise, spread [metrics]float64 // of the layer, over windows, over seeds
	wander              [metrics]float64 // the noise now
	falls               float64          // of the gradient, per octave of time
	deadShare           float64
	finalLoss, firstLoss,
	halfTime, power float64
	churn float64 // seeds that begin and end, per seed and window
}

// seed is a seed of a layer.
type seed struct {
	id    oona.SeedID
	state oona.State
	age   int // windows since it began to train
	off   [metrics]float64
}

// between returns a number between a and b.
func between(r *rand.Rand, a, b float64) float64 { return a + (b-a)*r.Float64() }

// heavy returns a number with Student's distribution with five degrees of freedom,
// scaled to a variance of 1.
func heavy(r *rand.Rand) float64 {
	sum := 0.0
	for range 5 {
		x := r.NormFloat64()
		sum += x * x
	}
	return r.NormFloat64() * math.Sqrt(5/sum) * math.Sqrt(3.0/5)
}

func newLayer(name oona.LayerID, seeds int, r *rand.Rand) *layer {
	l := &layer{
		name: name, rng: r,
		base:     [metrics]float64{gradient: between(r, -10, 2), variance: between(r, -12, 0), weight: between(r, 0, 6), compute: between(r, -14, -4)},
		noise:    [metrics]float64{loss: between(r, .01, .08), gradient: between(r, .05, .35), variance: between(r, .02, .15), weight: .005, compute: between(r, .02, .1)},
		spread:   [metrics]float64{loss: between(r, .2, .6), gradient: between(r, .5, 1.2), variance: between(r, .5, 1.8), weight: .15, compute: .15},
		falls:    between(r, .1, .5),
		halfTime: between(r, 3, 40), power: between(r, .4, 1.1), finalLoss: between(r, .05, 1), firstLoss: between(r, 1, 5),
		deadShare: between(r, .02, .25),
	}
	l.churn = []float64{0, .003, .01}[r.IntN(3)]
	for i := range seeds {
		s := seed{id: oona.SeedID(i), age: 1000}
		switch x := r.Float64(); {
		case x < .5:
			s.state = oona.Training
		case x < .65:
			s.state = oona.Grafting
		case x < .75:
			s.state = oona.Fossilized
		case x < .8:
			s.state = oona.Culled
		}
		l.offsets(&s)
		l.seeds = append(l.seeds, s)
	}
	l.seeds[0].state = oona.Training
	return l
}

func (l *layer) offsets(s *seed) {
	for m := range s.off {
		s.off[m] = l.spread[m] * heavy(l.rng)
	}
}

// window moves to the next window: noise, and seeds that begin and end.
func (l *layer) window() {
	const keeps = .6
	for m := range l.wander {
		l.wander[m] = keeps*l.wander[m] + math.Sqrt(1-keeps*keeps)*l.noise[m]*l.rng.NormFloat64()
	}
	for i := range l.seeds {
		s := &l.seeds[i]
		s.age++
		if l.rng.Float64() < l.churn && i > 0 { // the first one always trains, as a fault may be its
			l.advance(s)
		}
	}
}

// advance lets a seed begin or end.
func (l *layer) advance(s *seed) {
	switch {
	case s.state == oona.Dormant:
		s.state, s.age = oona.Training, 0
		l.offsets(s)
	case s.state == oona.Training && l.rng.IntN(2) == 0:
		s.state = oona.Grafting
	case s.state.Active():
		s.state = oona.Fossilized
		if l.rng.IntN(3) == 0 {
			s.state = oona.Culled
		}
	}
}

// wave lets many dormant seeds begin at once.
func (l *layer) wave() {
	for i := range l.seeds {
		if s := &l.seeds[i]; s.state == oona.Dormant && l.rng.IntN(2) == 0 {
			l.advance(s)
		}
	}
}

// level returns the logarithm of a metric's level after some windows of training.
func (l *layer) level(m int, trained float64) float64 {
	x := l.base[m] + l.wander[m]
	switch m {
	case loss:
		x += math.Log2(l.finalLoss + l.firstLoss*math.Pow(1+trained/l.halfTime, -l.power))
	case gradient:
		x -= l.falls * math.Log2(1+trained/l.halfTime)
	case variance:
		x += .5 * math.Log2(1+trained/l.halfTime)
	case weight:
		x += .15 * math.Log2(1+trained/l.halfTime)
	}
	return x
}

// young is how far a metric of a seed that has just begun is from that of the others.
var young = [metrics]float64{loss: 1.2, gradient: 1.5, variance: -2.5, weight: -.4}

// frame returns the readings of the layer with what a fault changes.
func (l *layer) frame(trained float64, e *effect) (seeds []oona.SeedID, states []oona.State, columns []oona.Column) {
	columns = make([]oona.Column, metrics)
	for m := range columns {
		columns[m].Name = metricNames[m]
	}
	var levels [metrics]float64
	for m := range levels {
		levels[m] = l.level(m, trained) + e.shift[m]
	}
	for i := range l.seeds {
		s := &l.seeds[i]
		at := place(s.id)
		if at < e.silent {
			continue
		}
		seeds, states = append(seeds, s.id), append(states, s.state)
		for m := range columns {
			columns[m].Values = append(columns[m].Values, l.sample(m, s, levels[m], at, e))
		}
	}
	return seeds, states, columns
}

// sample returns one reading, or NaN where the state of the seed has none.
func (l *layer) sample(m int, s *seed, level, at float64, e *effect) float32 {
	r := l.rng
	switch {
	case !s.state.Active() && (m == loss || m == gradient || m == dead || s.state != oona.Fossilized),
		(m == loss || m == gradient) && at < e.nan:
		return float32(math.NaN())
	case m == dead:
		x := l.deadShare + .08*r.NormFloat64() + .05*s.off[dead]
		if at < e.dead {
			x = between(r, .93, 1)
		}
		return float32(max(0, min(x, 1)))
	}
	x := level + s.off[m] + .3*l.spread[m]*r.NormFloat64()
	x += young[m] * math.Exp2(-float64(s.age)/5)
	if m == gradient && s.id == e.bad {
		x = level + e.badly
	}
	return float32(math.Exp2(x))
}

// place spreads seeds evenly over 0 to 1, so that a share of them can be chosen.
func place(id oona.SeedID) float64 {
	_, x := math.Modf(float64(id) * .6180339887498949)
	return x
}
