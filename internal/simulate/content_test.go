package simulate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// catalogue knows the metrics of schedules.
func catalogue(name string) oona.Metric {
	switch name {
	case "loss":
		return oona.Metric{Name: name, Group: oona.Health, Direction: oona.LowerIsBetter}
	case "gain":
		return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.HigherIsBetter}
	case "norm":
		return oona.Metric{Name: name, Group: oona.Health}
	}
	return oona.Metric{Name: name, Group: oona.Performance}
}

// content is a rollup without its hash and what depends on how its means were
// rounded: for the metrics of reducer 2 that have no direction, the worst seeds.
type content struct {
	oona.Rollup
	neutral    map[string][]oona.SeedValue // all their samples, in the order of the log
	worstSeeds int
}

// rollups returns what a layer's window held. Values are 0 or powers of two, of
// either sign, so that sums are exact and buckets plain.
func (o *oracle) rollups(l *line, start int64, layer oona.LayerID, a *account) (health, performance content) {
	p, cfg := l.panes[start], o.era(start).cfg
	var members []windows.Record
	for _, r := range p.records {
		if r.Frame.Layer == layer {
			members = append(members, r)
		}
	}
	health.worstSeeds, health.neutral = cfg.WorstSeeds, map[string][]oona.SeedValue{}
	health.Rollup = oona.Rollup{
		Group: oona.Health, Run: l.run, Layer: layer, Timeline: l.id,
		Start: oona.Micros(start), End: oona.Micros(start + cfg.Length.Microseconds()),
		Trigger:     oona.Trigger{Offset: a.record.Offset, Index: a.index},
		Watermark:   oona.Micros(l.before),
		FirstOffset: members[0].Offset, LastOffset: members[len(members)-1].Offset,
		Frames: int64(len(members)), Generation: cfg.Generation, Reducer: cfg.Reducer,
	}
	for _, r := range p.repeats {
		if r.Frame.Layer == layer {
			health.Duplicates++
		}
	}
	states, names := map[oona.SeedID]oona.State{}, map[string]bool{}
	var steps []int64
	var times []oona.Micros
	for _, r := range members {
		health.Readings += int64(len(r.Frame.Seeds))
		steps, times = append(steps, r.Frame.Step), append(times, r.Frame.ObservedAt)
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
		if s == oona.Training || s == oona.Grafting || s == oona.FineTuning {
			health.Seeds.Active++
		}
	}
	length := float64(cfg.Length.Microseconds()) / 1e6
	performance.Rates = oona.Rates{
		FramesPerSecond:   float64(health.Frames) / length,
		ReadingsPerSecond: float64(health.Readings) / length,
		Delay:             a.record.AppendedAt - slices.Max(times),
	}
	if cfg.Reducer == 2 {
		speed(&performance.Rates, members)
	} else if span := slices.Max(times) - slices.Min(times); span > 0 {
		performance.Rates.StepsPerSecond = float64(slices.Max(steps)-slices.Min(steps)) / (float64(span) / 1e6)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		into := &performance
		if catalogue(name).Group == oona.Health {
			into = &health
		}
		into.Metrics = append(into.Metrics, summary(name, members, cfg))
		if cfg.Reducer == 2 && catalogue(name).Direction == oona.Neutral {
			health.neutral[name] = samples(name, members)
		}
	}
	return health, performance
}

// speed is that of reducer 2: how far each producer came from one frame to its
// next, by sequence.
func speed(rates *oona.Rates, members []windows.Record) {
	for _, r := range members {
		var next *oona.Frame
		for _, s := range members {
			if s.Frame.Producer == r.Frame.Producer && s.Frame.Epoch == r.Frame.Epoch && s.Frame.Sequence > r.Frame.Sequence &&
				(next == nil || s.Frame.Sequence < next.Sequence) {
				next = s.Frame
			}
		}
		if next != nil && next.Step >= r.Frame.Step && next.ObservedAt > r.Frame.ObservedAt {
			rates.Steps += next.Step - r.Frame.Step
			rates.StepTime += next.ObservedAt - r.Frame.ObservedAt
		}
	}
	if rates.StepTime > 0 {
		rates.StepsPerSecond = float64(rates.Steps) / (float64(rates.StepTime) / 1e6)
	}
}

// samples are those of a metric that were measured.
func samples(name string, members []windows.Record) (list []oona.SeedValue) {
	for _, r := range members {
		for _, c := range r.Frame.Metrics {
			for i, x := range c.Values {
				if c.Name == name && x == x {
					list = append(list, oona.SeedValue{Seed: r.Frame.Seeds[i], Value: float64(x), Offset: r.Offset})
				}
			}
		}
	}
	return list
}

// farthest are the seeds with the samples farthest from a mean, each with the
// first of these.
func farthest(list []oona.SeedValue, mean float64, n int) (seeds []oona.SeedValue) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b oona.SeedValue) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Value-mean), math.Abs(a.Value-mean)), cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.Value, a.Value))
	})
	for _, s := range list {
		if len(seeds) < n && !slices.ContainsFunc(seeds, func(t oona.SeedValue) bool { return t.Seed == s.Seed }) {
			seeds = append(seeds, s)
		}
	}
	return seeds
}

// summary folds one metric of these records.
func summary(name string, members []windows.Record, cfg windows.Config) oona.MetricSummary {
	s := oona.MetricSummary{Name: name}
	var samples []float64
	worst := map[oona.SeedID]oona.SeedValue{}
	sign := map[oona.Direction]float64{oona.LowerIsBetter: 1, oona.HigherIsBetter: -1}[catalogue(name).Direction]
	positive, negative := map[int32]uint64{}, map[int32]uint64{}
	for _, r := range members {
		for _, c := range r.Frame.Metrics {
			if c.Name != name {
				continue
			}
			for i, value := range c.Values {
				x := float64(value)
				if math.IsNaN(x) {
					s.NotMeasured++
					if state := r.Frame.States[i]; cfg.Reducer == 2 && (state == oona.Training || state == oona.Grafting || state == oona.FineTuning) {
						s.NotMeasuredActive++
					}
					continue
				}
				samples = append(samples, x)
				s.Sum += x
				if before, seen := worst[r.Frame.Seeds[i]]; !seen || sign*x > sign*before.Value {
					worst[r.Frame.Seeds[i]] = oona.SeedValue{Seed: r.Frame.Seeds[i], Value: x, Offset: r.Offset}
				}
				switch { // of 32 buckets an octave, a power of two ends one
				case x == 0:
					s.Histogram.Zero++
				case x > 0:
					positive[int32(32*math.Log2(x))]++
				default:
					negative[int32(32*math.Log2(-x))]++
				}
			}
		}
	}
	if s.Count = int64(len(samples)); s.Count == 0 {
		return s
	}
	s.Min, s.Max, s.Mean = slices.Min(samples), slices.Max(samples), s.Sum/float64(len(samples))
	for _, x := range samples {
		s.M2 += float64((x - s.Mean) * (x - s.Mean))
	}
	s.Histogram.Positive, s.Histogram.Negative = buckets(positive), buckets(negative)
	if sign == 0 {
		return s
	}
	for _, id := range slices.Sorted(maps.Keys(worst)) {
		value := worst[id]
		if cfg.Reducer == 1 {
			value.Offset = oona.NoOffset
		}
		s.Worst = append(s.Worst, value)
	}
	slices.SortStableFunc(s.Worst, func(a, b oona.SeedValue) int { return cmp.Compare(sign*b.Value, sign*a.Value) })
	s.Worst = s.Worst[:min(len(s.Worst), cfg.WorstSeeds)]
	return s
}

func buckets(counts map[int32]uint64) (b oona.Buckets) {
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		b.Indexes, b.Counts = append(b.Indexes, i), append(b.Counts, counts[i])
	}
	return b
}

// differ says where a rollup is not as the oracle wants it: means and squares
// within rounding, all else exactly.
func differ(got *oona.Rollup, want *content) error {
	g, w := *got, want.Rollup
	g.Metrics, w.Metrics, g.Hash, w.Hash = nil, nil, 0, 0
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("\n got %+v\nwant %+v", g, w)
	}
	if len(got.Metrics) != len(want.Metrics) {
		return fmt.Errorf("%d metrics, want %d", len(got.Metrics), len(want.Metrics))
	}
	for i := range want.Metrics {
		g, w := got.Metrics[i], want.Metrics[i]
		if list, neutral := want.neutral[w.Name]; neutral {
			w.Worst = farthest(list, g.Mean, want.worstSeeds)
		}
		near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(b)) }
		same := g.Name == w.Name && g.Count == w.Count && g.NotMeasured == w.NotMeasured && g.NotMeasuredActive == w.NotMeasuredActive && g.Infinite == w.Infinite &&
			g.Sum == w.Sum && g.Min == w.Min && g.Max == w.Max && near(g.Mean, w.Mean) && near(g.M2, w.M2) &&
			g.Histogram.Zero == w.Histogram.Zero && sameBuckets(g.Histogram.Positive, w.Histogram.Positive) &&
			sameBuckets(g.Histogram.Negative, w.Histogram.Negative) && slices.Equal(g.Worst, w.Worst)
		if !same {
			return fmt.Errorf("metric %s:\n got %+v\nwant %+v", w.Name, g, w)
		}
	}
	return nil
}

func sameBuckets(a, b oona.Buckets) bool {
	return slices.Equal(a.Indexes, b.Indexes) && slices.Equal(a.Counts, b.Counts)
}
