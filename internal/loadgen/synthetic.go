package loadgen

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
)

// Synthetic describes generated load: frames of each layer in turn. Equal descriptions
// generate the same frames except for their times.
type Synthetic struct {
	Layers    int
	Seeds     int     // per layer
	Rate      float64 // frames per second of all layers
	Producers int     // each layer belongs to one producer
	Frames    int64   // of all layers; 0 for no limit
	Seed      uint64  // of the random values
}

// DefaultSynthetic describes a small network.
var DefaultSynthetic = Synthetic{Layers: 8, Seeds: 1_000, Rate: 50, Producers: 2, Seed: 1}

const maxLayers = 100_000

// ParseSynthetic parses a description such as layers=64,seeds=1000,rate=100. Keys that
// are omitted have the values of DefaultSynthetic.
func ParseSynthetic(text string) (Synthetic, error) {
	s := DefaultSynthetic
	s.Producers = 0
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return Synthetic{}, fmt.Errorf("synthetic load: %w", &oona.FieldError{Field: strconv.Quote(part), Reason: "is not key=value; write e.g. layers=64,seeds=1000,rate=100"})
		}
		if err := s.set(key, value); err != nil {
			return Synthetic{}, fmt.Errorf("synthetic load: %w", err)
		}
	}
	if s.Producers == 0 {
		s.Producers = min(DefaultSynthetic.Producers, s.Layers)
	}
	if err := s.validate(); err != nil {
		return Synthetic{}, fmt.Errorf("synthetic load: %w", err)
	}
	return s, nil
}

func (s *Synthetic) set(key, value string) (err error) {
	switch key {
	case "layers":
		s.Layers, err = strconv.Atoi(value)
	case "seeds":
		s.Seeds, err = strconv.Atoi(value)
	case "producers":
		s.Producers, err = strconv.Atoi(value)
	case "rate":
		s.Rate, err = strconv.ParseFloat(value, 64)
	case "frames":
		s.Frames, err = strconv.ParseInt(value, 10, 64)
	case "seed":
		s.Seed, err = strconv.ParseUint(value, 10, 64)
	default:
		return &oona.FieldError{Field: key, Reason: "is not a key; keys are layers, seeds, rate, producers, frames, seed"}
	}
	if errors.Is(err, strconv.ErrRange) {
		return &oona.FieldError{Field: key, Reason: fmt.Sprintf("is %s, which is too large", value)}
	}
	if err != nil {
		return &oona.FieldError{Field: key, Reason: fmt.Sprintf("is %q, which is not a valid number; give one, as in layers=8,seeds=100,rate=50", value)}
	}
	return nil
}

func (s Synthetic) validate() error {
	switch seeds := oona.DefaultFrameLimits.Seeds; {
	case s.Layers < 1 || s.Layers > maxLayers:
		return &oona.FieldError{Field: "layers", Reason: fmt.Sprintf("is %d; give 1 to %d", s.Layers, maxLayers)}
	case s.Seeds < 1 || s.Seeds > seeds:
		return &oona.FieldError{Field: "seeds", Reason: fmt.Sprintf("is %d; give 1 to %d", s.Seeds, seeds)}
	case !(s.Rate > 0) || math.IsInf(s.Rate, 0):
		return &oona.FieldError{Field: "rate", Reason: fmt.Sprintf("is %v; give a number of frames per second above 0", s.Rate)}
	case s.Producers < 1 || s.Producers > s.Layers: // a producer has at least one layer
		return &oona.FieldError{Field: "producers", Reason: fmt.Sprintf("is %d; give 1 to the number of layers, %d", s.Producers, s.Layers)}
	case s.Frames < 0:
		return &oona.FieldError{Field: "frames", Reason: fmt.Sprintf("is %d; give 0 (no limit) or more", s.Frames)}
	}
	return nil
}

func (s Synthetic) sources() []source {
	ids := make([]oona.SeedID, s.Seeds)
	for i := range ids {
		ids[i] = oona.SeedID(i)
	}
	table := s.columns()
	sources := make([]source, s.Producers)
	for p := range sources {
		sources[p] = newGenerator(s, p, ids, table)
	}
	return sources
}

// variants is the number of frames for which values are drawn. Frames repeat these
// values, so that generating a frame costs less than ingesting it. A layer uses a few
// of the variants in turn, so that layers differ.
const (
	variants = 16
	turns    = 4
)

// levels is the standard deviation of the logarithm of a metric's median between the
// variants.
const levels = 0.3

// columns draws the values of all metrics for each variant.
func (s Synthetic) columns() [][]oona.Column {
	random := rand.New(rand.NewPCG(s.Seed, 0))
	table := make([][]oona.Column, variants)
	for v := range table {
		for _, m := range synthesized {
			m.median *= math.Exp(levels * random.NormFloat64())
			values := make([]float32, s.Seeds)
			for i := range values {
				values[i] = m.draw(random)
			}
			table[v] = append(table[v], oona.Column{Name: m.name, Values: values})
		}
	}
	return table
}

// metric describes the distribution of a metric: log-normal, where sigma is the
// standard deviation of the logarithm.
type metric struct {
	name          string
	median, sigma float64
	ratio         bool // at most 1
	signed        bool // of either sign
}

// The metrics of the default catalogue.
var synthesized = []metric{
	{name: "reconstruction_loss", median: 0.4, sigma: 0.6},
	{name: "gradient_norm", median: 0.05, sigma: 1},
	{name: "activation_variance", median: 0.2, sigma: 0.5},
	{name: "dead_fraction", median: 0.1, sigma: 0.8, ratio: true},
	{name: "weight_norm", median: 5, sigma: 0.2},
	{name: "improvement", median: 0.005, sigma: 1, signed: true},
	{name: "blend", median: 0.5, sigma: 0.7, ratio: true},
	{name: "compute_seconds", median: 50e-6, sigma: 0.4},
}

// unmeasured is the share of values that are NaN.
const unmeasured = 0.02

func (m metric) draw(random *rand.Rand) float32 {
	if random.Float64() < unmeasured {
		return float32(math.NaN())
	}
	value := m.median * math.Exp(m.sigma*random.NormFloat64())
	if m.ratio {
		value = min(value, 1)
	}
	if m.signed && random.Uint64()&1 == 0 {
		value = -value
	}
	return float32(value)
}

// generator is the source of one synthetic producer. Frame k of the load belongs to
// layer k modulo the number of layers, and is due k / rate seconds after the start.
type generator struct {
	spec     Synthetic
	number   int
	table    [][]oona.Column
	layers   []oona.LayerID
	states   [][]oona.State // by layer; nil for layers of other producers
	random   *rand.Rand
	index    int64 // of the next frame of the load
	sequence int64
	frame    oona.Frame
}

func newGenerator(s Synthetic, number int, ids []oona.SeedID, table [][]oona.Column) *generator {
	g := &generator{
		spec: s, number: number, table: table,
		layers: make([]oona.LayerID, s.Layers),
		states: make([][]oona.State, s.Layers),
		random: rand.New(rand.NewPCG(s.Seed, uint64(number)+1)),
	}
	for layer := number; layer < s.Layers; layer += s.Producers {
		g.layers[layer] = oona.LayerID(fmt.Sprintf("layer.%d", layer))
		g.states[layer] = make([]oona.State, s.Seeds)
	}
	g.frame = oona.Frame{Producer: oona.ProducerID(fmt.Sprintf("synthetic-%d", number)), Seeds: ids}
	return g
}

func (g *generator) next() (*oona.Frame, oona.Micros, bool) {
	layers := int64(g.spec.Layers)
	for g.states[g.index%layers] == nil {
		g.index++
	}
	if g.spec.Frames > 0 && g.index >= g.spec.Frames {
		return nil, 0, false
	}
	layer, step := int(g.index%layers), g.index/layers
	g.grow(g.states[layer], step)
	f := &g.frame
	f.Epoch = 0
	f.Layer, f.Sequence, f.Step = g.layers[layer], g.sequence, step
	f.States = g.states[layer]
	f.Metrics = g.table[(int64(layer)*7+step%turns)%variants]
	due := oona.Micros(float64(g.index) / g.spec.Rate * 1e6)
	g.sequence++
	g.index++
	return f, due, true
}

// growthPeriod is the number of frames of a layer between two transitions of a seed.
const growthPeriod = 64

// grow makes a transition of every growthPeriod-th seed of the layer, unless its state
// is terminal.
func (g *generator) grow(states []oona.State, step int64) {
	for seed := int(step % growthPeriod); seed < len(states); seed += growthPeriod {
		if state := states[seed]; !state.Terminal() {
			states[seed] = g.successor(state)
		}
	}
}

// failing is the share of transitions that end a seed before it is fossilized.
const failing = 0.1

// successor draws a state that state can become: mostly the next one on the way to
// FOSSILIZED.
func (g *generator) successor(state oona.State) oona.State {
	next := state + 1
	if g.random.Float64() >= failing {
		return next
	}
	for end := oona.Culled; end.Valid(); end++ {
		if state.CanBecome(end) {
			return end
		}
	}
	return next
}
