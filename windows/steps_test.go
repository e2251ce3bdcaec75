package windows

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// stride is a frame: when it was observed, in seconds, and at which step.
type stride struct {
	producer string
	epoch    int64
	sequence int64
	at       float64
	step     int64
}

// strides returns n frames of a trainer, 0.2 s and two steps apart.
func strides(n int, sequence int64, at float64, step int64) (list []stride) {
	for i := range n {
		list = append(list, stride{"trainer", 0, sequence + int64(i), at + 0.2*float64(i), step + 2*int64(i)})
	}
	return list
}

// stridesOf returns the performance rollups of a run that has sent these frames, in
// windows of two seconds.
func stridesOf(t *testing.T, reducer int32, list []stride) (rollups []oona.Rollup) {
	t.Helper()
	p := newPartition(t, withConfig(func(c *Config) {
		c.Length, c.OutOfOrderness, c.Reducer = 2*time.Second, 10*time.Second, reducer
	}))
	for _, s := range list {
		p.folded(p.append(s.at, sample{
			observed: s.at, producer: s.producer, epoch: oona.Micros(s.epoch), sequence: s.sequence + 1, step: s.step,
			seeds: []oona.SeedID{0, 1}, metrics: []oona.Column{{Name: "norm", Values: []float32{1, 2}}},
		}))
	}
	p.idle(t)
	for _, r := range p.rollups {
		if r.Group == oona.Performance {
			rollups = append(rollups, r)
		}
	}
	return rollups
}

// idle appends ticks until all windows have closed.
func (p *partition) idle(t *testing.T) {
	t.Helper()
	at := float64(p.engine.maxAppendedAt-origin) / 1e6
	for n := 0; p.engine.OpenWindows() > 0; n++ {
		if at++; n > 1000 {
			t.Fatal("a window stays open")
		}
		p.tick(at)
	}
}

// The speed of a training run at a steady pace, when it goes back to a checkpoint, when it begins
// from scratch, and when it sends one frame per window. Reducer 1 gives wrong speeds of 282 and 55,560
// for two of these cases.
func TestStepsPerSecond(t *testing.T) {
	const second = 1_000_000
	join := func(lists ...[]stride) (all []stride) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	backwards := func(list []stride) []stride {
		for i := range list {
			list[i].sequence = int64(len(list) - i)
			list[i].step = 1000 - list[i].step
		}
		return list
	}
	of := func(producer string, epoch int64, list []stride) []stride {
		for i := range list {
			list[i].producer, list[i].epoch = producer, epoch
		}
		return list
	}
	for _, c := range []struct {
		name   string
		frames []stride
		speed  float64 // 0 if it is not known, because the time is 0
		steps  int64
		time   oona.Micros
		first  float64 // speed of reducer 1
	}{
		{"steady", strides(10, 0, 0, 1000), 10, 18, 1.8 * second, 10},
		{"ckpt", join(strides(5, 0, 0, 1000), strides(5, 5, 1, 500)), 10, 16, 1.6 * second, 508 / 1.8},
		{"scratch", join(strides(5, 0, 0, 100_000), strides(5, 5, 1, 0)), 10, 16, 1.6 * second, 100_008 / 1.8},
		{"slow", []stride{{"trainer", 0, 0, 0, 2000}, {"trainer", 0, 1, 2, 2020}}, 0, 0, 0, 0},
		{"standing still", []stride{{"trainer", 0, 0, 0, 7}, {"trainer", 0, 1, 1, 7}}, 0, 0, second, 0},
		{"at one instant", []stride{{"trainer", 0, 0, 1, 7}, {"trainer", 0, 1, 1, 8}}, 0, 0, 0, 0},
		{"only a fall", []stride{{"trainer", 0, 0, 0, 7}, {"trainer", 0, 1, 1, 6}}, 0, 0, 0, 1},
		{"time goes back", []stride{{"trainer", 0, 0, 1, 7}, {"trainer", 0, 1, 0, 8}}, 0, 0, 0, 1},
		{"in another order", append(strides(5, 5, 1, 1010), strides(5, 0, 0, 1000)...), 10, 18, 1.8 * second, 10},
		{"against the sequence", backwards(strides(5, 0, 0, 0)), 0, 0, 0, 10},
		{"a layer in two frames", join(strides(5, 0, 0, 0), strides(5, 100, 0, 0)), 10, 16, 1.6 * second, 10},
		{"two that train together", join(of("a", 0, strides(5, 0, 0, 1000)), of("b", 0, strides(5, 0, 0.01, 1000))), 10, 16, 1.6 * second, 8 / 0.81},
		{"begun again", join(of("a", 1, strides(5, 0, 0, 1000)), of("a", 2, strides(5, 0, 1, 500))), 10, 16, 1.6 * second, 508 / 1.8},
		{"two of one frame each", []stride{{"a", 0, 0, 0, 0}, {"b", 0, 0, 1, 10}}, 0, 0, 0, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range stridesOf(t, 2, c.frames) {
				if r.Rates.Steps != c.steps || r.Rates.StepTime != c.time || r.Rates.StepsPerSecond != c.speed || r.SpeedKnown() != (c.time > 0) {
					t.Errorf("%d steps in %d microseconds, %v a second, known %t; want %d in %d, %v", r.Rates.Steps, r.Rates.StepTime, r.Rates.StepsPerSecond, r.SpeedKnown(), c.steps, c.time, c.speed)
				}
			}
			for _, r := range stridesOf(t, 1, c.frames) {
				if r.Rates.Steps != 0 || r.Rates.StepTime != 0 || math.Abs(r.Rates.StepsPerSecond-c.first) > 1e-9 {
					t.Errorf("reducer 1: %+v, want %v steps a second", r.Rates, c.first)
				}
			}
		})
	}
}

// If the number of steps overflows the counter, it stays at the maximum.
func TestStepsDoNotOverflow(t *testing.T) {
	var list []stride
	for i := range int64(6) {
		list = append(list, stride{"trainer", 0, i, float64(i) / 10, i % 2 * math.MaxInt64})
	}
	r := stridesOf(t, 2, list)
	if len(r) != 1 || r[0].Rates.Steps != math.MaxInt64 || r[0].Rates.StepTime != 300_000 {
		t.Errorf("%+v", r)
	}
}

// The steps of each layer are measured only from its own frames. A repeat is not counted again.
func TestStepsOfManyLayers(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.Reducer = 2 }))
	for i := range 50 {
		for layer := range 10 {
			s := sample{layer: fmt.Sprint(layer), observed: 0.1 * float64(i), step: int64(i * layer), sequence: int64(10*i + layer + 1)}
			p.folded(p.append(0, s))
			if i == 20 {
				p.must(Duplicate, ReasonDuplicate, p.append(0, s))
			}
		}
	}
	p.idle(t)
	if len(p.rollups) != 20 {
		t.Fatalf("%d rollups, want 20", len(p.rollups))
	}
	for i, r := range p.rollups {
		if layer := int64(i / 2); r.Group == oona.Performance && (r.Rates.Steps != 49*layer || r.Rates.StepTime != 4_900_000) {
			t.Errorf("layer %d: %+v", layer, r.Rates)
		}
	}
	if len(p.engine.progress) != 0 || p.engine.spareAccumulators[0].progress != nil {
		t.Error("the progress of a closed window is kept")
	}
}
