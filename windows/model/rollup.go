package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model/exact"
)

// Rollup is what a rollup must hold. Its hash is not set, and its metrics lack what
// only Compare computes.
type Rollup struct {
	oona.Rollup
	metrics []metric
}

// metric is a metric in the frames of a layer's window.
type metric struct {
	mutant  Mutant
	about   oona.Metric
	cfg     *windows.Config
	members []windows.Record
}

// rollups returns what a layer's window held.
func (m *Model) rollups(t *timeline, start int64, layer oona.LayerID, a *Account) (health, performance Rollup) {
	p, cfg := t.panes[start], &m.epoch(start).cfg
	members := p.layers[layer]
	health.Rollup = oona.Rollup{
		Group: oona.Health, Run: t.run, Layer: layer, Timeline: t.id,
		Start: oona.Micros(start), End: oona.Micros(start + cfg.Length.Microseconds()),
		Trigger:     oona.Trigger{Incarnation: m.incarnation, Offset: a.Record.Offset, Index: a.index},
		Watermark:   oona.Micros(t.before),
		FirstOffset: members[0].Offset, LastOffset: members[len(members)-1].Offset,
		Frames: int64(len(members)), Duplicates: p.repeats[layer],
		Generation: cfg.Generation, Reducer: cfg.Reducer, Catalogue: cfg.Catalogue,
	}
	states, names := map[oona.SeedID]oona.State{}, map[string]bool{}
	var latest oona.Micros = math.MinInt64
	for _, r := range members {
		health.Readings += int64(len(r.Frame.Seeds))
		latest = max(latest, r.Frame.ObservedAt)
		for i, id := range r.Frame.Seeds {
			states[id] = r.Frame.States[i]
		}
		for _, c := range r.Frame.Metrics {
			names[c.Name] = true
		}
	}
	performance = health
	performance.Group = oona.Performance
	for _, s := range states {
		health.Seeds.Seen++
		health.Seeds.ByState[s]++
		if active(s) {
			health.Seeds.Active++
		}
	}
	length := float64(cfg.Length.Microseconds()) / 1e6
	performance.Rates = oona.Rates{
		FramesPerSecond:   float64(health.Frames) / length,
		ReadingsPerSecond: float64(health.Readings) / length,
		Delay:             a.Record.AppendedAt - latest,
	}
	if cfg.Reducer == 2 {
		m.speed(&performance.Rates, members)
	} else {
		firstSpeed(&performance.Rates, members)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		into, about := &performance, m.about(name)
		if about.Group == oona.Health {
			into = &health
		}
		about.Name = name
		into.metrics = append(into.metrics, metric{m.Mutant, about, cfg, members})
	}
	return health, performance
}

func active(s oona.State) bool {
	return s == oona.Training || s == oona.Grafting || s == oona.FineTuning
}

// firstSpeed is the speed by reducer 1.
func firstSpeed(rates *oona.Rates, members []windows.Record) {
	var steps []int64
	var times []oona.Micros
	for _, r := range members {
		steps, times = append(steps, r.Frame.Step), append(times, r.Frame.ObservedAt)
	}
	if span := slices.Max(times) - slices.Min(times); span > 0 {
		rates.StepsPerSecond = float64(slices.Max(steps)-slices.Min(steps)) / (float64(span) / 1e6)
	}
}

// speed is the speed by reducer 2: how far each producer came from one frame to its next,
// by sequence.
func (m *Model) speed(rates *oona.Rates, members []windows.Record) {
	type producer struct {
		id    oona.ProducerID
		epoch oona.Micros
	}
	of := map[producer][]*oona.Frame{}
	for _, r := range members {
		p := producer{r.Frame.Producer, r.Frame.Epoch}
		if m.Mutant == StepsAcrossEpochs {
			p.epoch = 0
		}
		of[p] = append(of[p], r.Frame)
	}
	for _, frames := range of {
		if m.Mutant != StepsAsTheyCame {
			slices.SortStableFunc(frames, func(f, g *oona.Frame) int {
				return cmp.Or(cmp.Compare(f.Epoch, g.Epoch), cmp.Compare(f.Sequence, g.Sequence))
			})
		}
		for k := range frames[1:] {
			rise, passed := frames[k+1].Step-frames[k].Step, frames[k+1].ObservedAt-frames[k].ObservedAt
			if passed > 0 && (rise >= 0 || m.Mutant == FallsCount) {
				rates.Steps += max(rise, 0)
				rates.StepTime += passed
			}
		}
	}
	if rates.StepTime > 0 {
		rates.StepsPerSecond = float64(rates.Steps) / (float64(rates.StepTime) / 1e6)
	}
}

// sample is a value that a seed had in a frame.
type sample struct {
	oona.SeedValue
	state oona.State
}

// samples are all values of the metric, in the order of the log.
func (c *metric) samples() (all []sample) {
	for _, r := range c.members {
		for _, column := range r.Frame.Metrics {
			if column.Name != c.about.Name {
				continue
			}
			for i, v := range column.Values {
				all = append(all, sample{oona.SeedValue{Seed: r.Frame.Seeds[i], Value: float64(v), Offset: r.Offset}, r.Frame.States[i]})
			}
		}
	}
	return all
}

// summarize returns what a rollup must contain for the metric. The rounded mean of the
// engine's rollup decides which seeds are the worst ones of a neutral metric.
func (c *metric) summarize(mean float64) oona.MetricSummary {
	s := oona.MetricSummary{Name: c.about.Name}
	var finite []sample
	var values []float64
	for _, x := range c.samples() {
		switch {
		case math.IsNaN(x.Value):
			s.NotMeasured++
			if c.cfg.Reducer == 2 && (c.mutant == AllNotMeasured || active(x.state)) {
				s.NotMeasuredActive++
			}
		case math.IsInf(x.Value, 0):
			s.Infinite++
		default:
			finite, values = append(finite, x), append(values, x.Value)
		}
	}
	if s.Count = int64(len(values)); s.Count == 0 {
		return s
	}
	s.Min, s.Max = slices.Min(values), slices.Max(values)
	s.Sum, s.Mean, s.M2 = exact.Moments(values)
	s.Histogram = exact.Histogram(values)
	if c.about.Direction == oona.Neutral {
		if c.cfg.Reducer == 2 {
			s.Worst = c.farthest(finite, mean)
		}
		return s
	}
	s.Worst = c.worst(finite)
	return s
}

// worst are the seeds with the worst values, each with the first frame of its
// worst.
func (c *metric) worst(finite []sample) []oona.SeedValue {
	sign := 1.0
	if c.about.Direction == oona.HigherIsBetter {
		sign = -1
	}
	of := map[oona.SeedID]oona.SeedValue{}
	for _, x := range finite {
		before, seen := of[x.Seed]
		if !seen || sign*x.Value > sign*before.Value || c.mutant == WorstOfLast && x.Value == before.Value {
			of[x.Seed] = x.SeedValue
		}
	}
	var list []oona.SeedValue
	for _, id := range slices.Sorted(maps.Keys(of)) {
		value := of[id]
		if c.cfg.Reducer == 1 {
			value.Offset = oona.NoOffset
		}
		list = append(list, value)
	}
	slices.SortStableFunc(list, func(a, b oona.SeedValue) int { return cmp.Compare(sign*b.Value+0, sign*a.Value+0) })
	return list[:min(len(list), c.cfg.WorstSeeds)]
}

// farthest are the seeds with the samples farthest from the mean, each with the
// first of these. Distances are computed with 600 bits.
func (c *metric) farthest(finite []sample, mean float64) (list []oona.SeedValue) {
	if c.mutant == FarthestFromZero {
		mean = 0
	}
	type far struct {
		oona.SeedValue
		distance *big.Float
	}
	var all []far
	for _, x := range finite {
		d := new(big.Float).SetPrec(600).SetFloat64(x.Value)
		d.Sub(d, new(big.Float).SetFloat64(mean))
		all = append(all, far{x.SeedValue, d.Abs(d)})
	}
	// Of a seed's samples that are equally far, the greater, and then the first.
	slices.SortStableFunc(all, func(a, b far) int {
		return cmp.Or(b.distance.Cmp(a.distance), cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.Value+0, a.Value+0))
	})
	for _, x := range all {
		known := slices.ContainsFunc(list, func(s oona.SeedValue) bool { return s.Seed == x.Seed })
		if !known && len(list) < c.cfg.WorstSeeds {
			list = append(list, x.SeedValue)
		}
	}
	return list
}

// Compare returns an error if an engine's rollup is not what w must be: sums, means
// and squares within rounding, everything else exactly.
func (w *Rollup) Compare(got *oona.Rollup) error {
	want := w.Rollup
	if len(got.Metrics) != len(w.metrics) {
		return fmt.Errorf("%d metrics, the model has %d", len(got.Metrics), len(w.metrics))
	}
	for i := range w.metrics {
		want.Metrics = append(want.Metrics, w.metrics[i].summarize(got.Metrics[i].Mean))
	}
	return exact.CompareRollups(got, &want)
}

// Compare returns an error if an engine says something else of the account's
// record, or emits other rollups.
func (a *Account) Compare(outcome windows.Outcome, emitted []oona.Rollup) error {
	if outcome.Verdict != a.Outcome.Verdict || outcome.Reason != a.Outcome.Reason {
		return fmt.Errorf("offset %d is %s (%s), the model says %s (%s)", a.Record.Offset, outcome.Verdict, outcome.Reason, a.Outcome.Verdict, a.Outcome.Reason)
	}
	if len(emitted) != len(a.Rollups) {
		return fmt.Errorf("offset %d closes %d rollups, by the model %d", a.Record.Offset, len(emitted), len(a.Rollups))
	}
	for i := range a.Rollups {
		if w := &a.Rollups[i]; w.Compare(&emitted[i]) != nil {
			return fmt.Errorf("rollup %d of %s %s at %d: %w", i, w.Run, w.Layer, w.Start, w.Compare(&emitted[i]))
		}
	}
	return nil
}
