package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// The shape of the frames: 1,000 seeds by 8 metrics, 8,000 samples.
const (
	seedsPerFrame   = 1000
	metricsPerFrame = 8
	samplesPerFrame = seedsPerFrame * metricsPerFrame
	frameInterval   = 1_000_000 // microseconds of event time between two frames of a layer
	repeatEvery     = 100       // one in 100 frames is sent twice
	ranks           = 16        // trainers, each with its own layers
)

// corpus has the frames of a run of many layers: a frame of each layer per step, and some
// frames twice. All readers are measured on the same encoded frames.
type corpus struct {
	layers     []oona.LayerID
	steps      int
	unmeasured float64         // share of the seeds without a measurement
	columns    [][]oona.Column // variants of a frame's values; frames use them in turn
	states     [][]oona.State  // variants of a frame's states
	seeds      []oona.SeedID

	start    oona.Micros // event time of the first payload
	payloads [][]byte    // encoded frames, in the order of sending
	layerOf  []int       // by payload
	distinct int         // number of payloads that are not repeats
}

const variants = 32 // of a frame's values: a megabyte, which does not fit the second-level cache

// newCorpus draws the values and random states. The share unmeasured of the seeds has no
// measurements, like seeds that are not active.
func newCorpus(layers, steps int, unmeasured float64) *corpus {
	random := rand.New(rand.NewPCG(1, 2))
	c := &corpus{steps: steps, unmeasured: unmeasured, layers: make([]oona.LayerID, layers), seeds: make([]oona.SeedID, seedsPerFrame)}
	for i := range c.layers {
		c.layers[i] = oona.LayerID(fmt.Sprintf("encoder.%04d", i))
	}
	for i := range c.seeds {
		c.seeds[i] = oona.SeedID(i)
	}
	for range variants {
		idle := make([]bool, seedsPerFrame)
		for i := range idle {
			idle[i] = random.Float64() < unmeasured
		}
		columns := make([]oona.Column, len(drawn))
		for i, m := range drawn {
			columns[i] = oona.Column{Name: m.name, Values: make([]float32, seedsPerFrame)}
			for j := range columns[i].Values {
				if columns[i].Values[j] = m.draw(random); idle[j] {
					columns[i].Values[j] = float32(math.NaN())
				}
			}
		}
		states := make([]oona.State, seedsPerFrame)
		for i := range states {
			states[i] = oona.State(random.IntN(oona.StateCount))
		}
		c.columns, c.states = append(c.columns, columns), append(c.states, states)
	}
	return c
}

// drawn has the metrics of the default catalogue with their distributions: log-normal,
// where sigma is the standard deviation of the logarithm.
var drawn = [metricsPerFrame]metric{
	{name: "reconstruction_loss", median: 0.4, sigma: 0.6},
	{name: "gradient_norm", median: 0.05, sigma: 1},
	{name: "activation_variance", median: 0.2, sigma: 0.5},
	{name: "dead_fraction", median: 0.1, sigma: 0.8, zeros: 0.3},
	{name: "weight_norm", median: 5, sigma: 0.2},
	{name: "improvement", median: 0.005, sigma: 1, signed: true},
	{name: "blend", median: 0.5, sigma: 0.7},
	{name: "compute_seconds", median: 50e-6, sigma: 0.4},
}

type metric struct {
	name          string
	median, sigma float64
	zeros         float64 // the share of values that are 0
	signed        bool
}

func (m metric) draw(random *rand.Rand) float32 {
	value := m.median * math.Exp(m.sigma*random.NormFloat64())
	if random.Float64() < m.zeros {
		value = 0
	}
	if m.signed && random.IntN(2) == 0 {
		value = -value
	}
	return float32(value)
}

// encode encodes the payloads of a run whose first frame has the event time start. It
// reuses the memory of earlier payloads.
func (c *corpus) encode(run oona.RunID, start oona.Micros) { c.encodeSteps(run, start, 0, c.steps) }

// encodeSteps encodes only the payloads of the steps in [from, to).
func (c *corpus) encodeSteps(run oona.RunID, start oona.Micros, from, to int) {
	n := 0
	c.start, c.distinct = start, 0
	for step := from; step < to; step++ {
		for layer := range c.layers {
			f := c.frame(run, start, step, layer)
			n = c.put(n, layer, &f)
			if c.distinct++; c.distinct%repeatEvery == 0 {
				n = c.put(n, layer, &f)
			}
		}
	}
	c.payloads, c.layerOf = c.payloads[:n], c.layerOf[:n]
}

func (c *corpus) put(n, layer int, f *oona.Frame) int {
	switch {
	case n < len(c.payloads):
	case n < cap(c.payloads) && n < cap(c.layerOf):
		c.payloads, c.layerOf = c.payloads[:n+1], c.layerOf[:n+1]
	default:
		c.payloads = append(c.payloads, make([]byte, 0, samplesPerFrame*4+3*seedsPerFrame+512))
		c.layerOf = append(c.layerOf, layer)
	}
	c.payloads[n] = avro.AppendFrame(c.payloads[n][:0], f)
	c.layerOf[n] = layer
	return n + 1
}

// frame returns a frame of a layer. It shares slices with the corpus.
func (c *corpus) frame(run oona.RunID, start oona.Micros, step, layer int) oona.Frame {
	variant := (step*7 + layer) % variants
	return oona.Frame{
		Run: run, Layer: c.layers[layer],
		Producer: oona.ProducerID(fmt.Sprintf("rank-%d", layer%ranks)), Epoch: start,
		Sequence: int64(step*len(c.layers) + layer), Step: int64(step),
		ObservedAt: start + oona.Micros(step*frameInterval+layer),
		Seeds:      c.seeds, States: c.states[variant], Metrics: c.columns[variant],
	}
}

// recordedIdle is the share of seeds without a measurement in the recorded run of
// examples/digits.
const recordedIdle = 0.87

// frames returns the number of frames of the whole corpus, without repeats.
func (c *corpus) frames() int { return c.steps * len(c.layers) }

// records returns the number of records of the whole corpus, including repeats.
func (c *corpus) records() int { return c.frames() + c.frames()/repeatEvery }

// samples returns the number of samples of the payloads, including repeats.
func (c *corpus) samples() float64 { return float64(len(c.payloads)) * samplesPerFrame }

// span returns the event time that the corpus covers, rounded up to windows.
func (c *corpus) span(window time.Duration) oona.Micros {
	length := oona.Micros(window.Microseconds())
	return (oona.Micros(c.steps*frameInterval)/length + 1) * length
}

// closedFrames returns the number of frames in windows that have closed after the last
// step.
func (c *corpus) closedFrames() int {
	cfg := windows.DefaultConfig()
	length := oona.Micros(cfg.Length.Microseconds())
	grace := oona.Micros((cfg.OutOfOrderness + cfg.AllowedLateness).Microseconds())
	time := func(step int) oona.Micros { return c.start + oona.Micros(step*frameInterval) }
	steps := 0
	for steps < c.steps && time(steps)/length*length+length+grace <= time(c.steps-1) {
		steps++
	}
	return steps * len(c.layers)
}

// closed returns the number of records in these windows, including repeats.
func (c *corpus) closed() int { return c.closedFrames() + c.closedFrames()/repeatEvery }

// closedRollups returns the number of rollups of these windows: two per layer and window.
func (c *corpus) closedRollups() int {
	length := oona.Micros(windows.DefaultConfig().Length.Microseconds())
	steps := c.closedFrames() / len(c.layers)
	if steps == 0 {
		return 0
	}
	last := c.start + oona.Micros((steps-1)*frameInterval)
	return int(last/length-c.start/length+1) * len(c.layers) * 2
}
