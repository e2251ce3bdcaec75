package watch

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
)

// Record is what is shown of a record of the bus, or of one frame of several
// that a record of the raw topic holds.
type Record struct {
	Address   string    `json:"address"` // of the design; a topic's name where it has none
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	At        time.Time `json:"at"`   // as the bus has it
	Kind      string    `json:"kind"` // which of the fields below there is
	Path      string    `json:"path,omitempty"`
	Repeat    bool      `json:"repeat,omitempty"` // a rollup that a reader must drop
	Side      *side     `json:"side,omitempty"`

	Frame         *frame          `json:"frame,omitempty"`
	JSON          json.RawMessage `json:"json,omitempty"` // a record of the raw topic
	Rollup        *rollup         `json:"rollup,omitempty"`
	Tick          *tick           `json:"tick,omitempty"`
	Configuration *configuration  `json:"configuration,omitempty"`
	Undecoded     *undecoded      `json:"undecoded,omitempty"`

	run   oona.RunID
	layer oona.LayerID
}

// The kinds of records.
const (
	kindFrame         = "frame"
	kindJSON          = "json"
	kindRollup        = "rollup"
	kindTick          = "tick"
	kindConfiguration = "configuration"
	kindUndecoded     = "undecoded"
)

// side is why a record is in a side topic, and where it was.
type side struct {
	Reason    string `json:"reason"`
	Message   string `json:"message"`
	Topic     string `json:"topic"`
	Partition string `json:"partition"`
	Offset    string `json:"offset"`
	Stage     string `json:"stage"`
}

// undecoded is a value whose form is not known, or a dead letter's.
type undecoded struct {
	Error string `json:"error,omitempty"`
	Bytes int    `json:"bytes"`
	Head  string `json:"head"` // in hexadecimal
}

// shownHead is how much is shown of what is not decoded, in bytes.
const shownHead = 32

func undecodedValue(value []byte, err error) *undecoded {
	u := &undecoded{Bytes: len(value), Head: hex.EncodeToString(value[:min(len(value), shownHead)])}
	if err != nil {
		u.Error = err.Error()
	}
	return u
}

// frame has the names of seed_metrics.v1.avsc, as POST /v1/frames takes them.
type frame struct {
	Run        oona.RunID      `json:"run_id"`
	Layer      oona.LayerID    `json:"layer_id"`
	Timeline   oona.TimelineID `json:"timeline,omitempty"`
	Producer   oona.ProducerID `json:"producer_id"`
	Epoch      oona.Micros     `json:"producer_epoch"`
	Sequence   int64           `json:"sequence"`
	ObservedAt oona.Micros     `json:"observed_at"`
	Step       int64           `json:"step"`
	Seeds      []oona.SeedID   `json:"seed_ids"`
	States     []string        `json:"states"`
	Metrics    []column        `json:"metrics"`
	Tensors    []tensor        `json:"tensors,omitempty"`
}

type column struct {
	Name   string   `json:"name"`
	Values []sample `json:"values"`
}

// sample and number are written as ingest takes them: null for NaN, infinities
// as texts.
type (
	sample float32
	number float64
)

func (s sample) MarshalJSON() ([]byte, error) { return appendNumber(float64(s), 32), nil }
func (n number) MarshalJSON() ([]byte, error) { return appendNumber(float64(n), 64), nil }

func appendNumber(v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return []byte("null")
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`)
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`)
	}
	return strconv.AppendFloat(nil, v, 'g', -1, bits)
}

type tensor struct {
	Name    string      `json:"name"`
	Seed    oona.SeedID `json:"seed_id"`
	DType   string      `json:"dtype"`
	Shape   []int64     `json:"shape"`
	Data    any         `json:"data"` // bytes, or a claim
	Summary *summary    `json:"summary,omitempty"`
	Problem string      `json:"problem,omitempty"` // why there is no summary

	of oona.Tensor
}

type claim struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// frameOf copies what is shown of f, of one seed only where it is not AnySeed.
// It returns nil where that seed is not in it.
func frameOf(f *oona.Frame, seed oona.SeedID) *frame {
	out := &frame{
		Run: f.Run, Layer: f.Layer, Timeline: f.Timeline, Producer: f.Producer, Epoch: f.Epoch,
		Sequence: f.Sequence, ObservedAt: f.ObservedAt, Step: f.Step,
	}
	shown := func(i int) bool { return seed == oona.AnySeed || f.Seeds[i] == seed }
	for i, id := range f.Seeds {
		if shown(i) {
			out.Seeds = append(out.Seeds, id)
			out.States = append(out.States, f.States[i].String())
		}
	}
	if out.Seeds == nil {
		return nil
	}
	for _, c := range f.Metrics {
		to := column{Name: c.Name}
		for i, v := range c.Values {
			if shown(i) {
				to.Values = append(to.Values, sample(v))
			}
		}
		out.Metrics = append(out.Metrics, to)
	}
	for _, t := range f.Tensors {
		if seed == oona.AnySeed || t.Seed == seed {
			out.Tensors = append(out.Tensors, tensorOf(t))
		}
	}
	return out
}

func tensorOf(t oona.Tensor) tensor {
	out := tensor{Name: t.Name, Seed: t.Seed, DType: t.DType, Shape: t.Shape, Data: t.Data, of: t}
	if c := t.Claim; c != nil {
		out.Data = claim{c.Bucket, c.Key, c.Size, hex.EncodeToString(c.SHA256[:])}
	}
	if t.Claim == nil && t.Data == nil {
		out.Data = []byte{}
	}
	if out.Shape == nil {
		out.Shape = []int64{}
	}
	return out
}

type rollup struct {
	Group      string          `json:"group"`
	Run        oona.RunID      `json:"run_id"`
	Layer      oona.LayerID    `json:"layer_id"`
	Timeline   oona.TimelineID `json:"timeline,omitempty"`
	Start      time.Time       `json:"window_start"`
	End        time.Time       `json:"window_end"`
	Offset     int64           `json:"trigger_offset"`
	Index      int32           `json:"trigger_index"`
	Watermark  time.Time       `json:"watermark"`
	First      int64           `json:"first_offset"`
	Last       int64           `json:"last_offset"`
	Frames     int64           `json:"frames"`
	Readings   int64           `json:"readings"`
	Duplicates int64           `json:"duplicates"`
	Generation int32           `json:"generation"`
	Seeds      *census         `json:"seeds,omitempty"`
	Rates      *rates          `json:"rates,omitempty"`
	Metrics    []metric        `json:"metrics"`
	Hash       string          `json:"content_hash"`
}

type census struct {
	Seen    int64            `json:"seen"`
	Active  int64            `json:"active"`
	ByState map[string]int64 `json:"by_state"`
}

type rates struct {
	Frames   number `json:"frames_per_second"`
	Readings number `json:"readings_per_second"`
	Steps    number `json:"steps_per_second"`
	Delay    number `json:"delay_seconds"`
}

type metric struct {
	Name        string    `json:"name"`
	Count       int64     `json:"count"`
	NotMeasured int64     `json:"not_measured"`
	Infinite    int64     `json:"infinite"`
	Sum         number    `json:"sum"`
	Min         number    `json:"min"`
	Max         number    `json:"max"`
	Mean        number    `json:"mean"`
	StdDev      number    `json:"stddev"`
	Histogram   histogram `json:"histogram"` // of Prometheus' native schema 5
	Worst       []worst   `json:"worst,omitempty"`
}

type histogram struct {
	Zero     uint64  `json:"zero"`
	Positive buckets `json:"positive"`
	Negative buckets `json:"negative"`
}

type buckets struct {
	Indexes []int32  `json:"indexes"`
	Counts  []uint64 `json:"counts"`
}

type worst struct {
	Seed  oona.SeedID `json:"seed_id"`
	Value number      `json:"value"`
}

func rollupOf(r *oona.Rollup) *rollup {
	out := &rollup{
		Group: r.Group.String(), Run: r.Run, Layer: r.Layer, Timeline: r.Timeline,
		Start: r.Start.Time(), End: r.End.Time(), Offset: r.Trigger.Offset, Index: r.Trigger.Index,
		Watermark: r.Watermark.Time(), First: r.FirstOffset, Last: r.LastOffset,
		Frames: r.Frames, Readings: r.Readings, Duplicates: r.Duplicates, Generation: r.Generation,
		Hash: fmt.Sprintf("%016x", r.Hash), Metrics: []metric{},
	}
	if r.Group == oona.Health {
		out.Seeds = &census{r.Seeds.Seen, r.Seeds.Active, map[string]int64{}}
		for state, n := range r.Seeds.ByState {
			if n > 0 {
				out.Seeds.ByState[oona.State(state).String()] = n
			}
		}
	} else {
		out.Rates = &rates{number(r.Rates.FramesPerSecond), number(r.Rates.ReadingsPerSecond), number(r.Rates.StepsPerSecond), number(r.Rates.Delay) / 1e6}
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		to := metric{
			Name: m.Name, Count: m.Count, NotMeasured: m.NotMeasured, Infinite: m.Infinite,
			Sum: number(m.Sum), Min: number(m.Min), Max: number(m.Max), Mean: number(m.Mean), StdDev: number(m.StdDev()),
			Histogram: histogram{m.Histogram.Zero, buckets(m.Histogram.Positive), buckets(m.Histogram.Negative)},
		}
		for _, w := range m.Worst {
			to.Worst = append(to.Worst, worst{w.Seed, number(w.Value)})
		}
		out.Metrics = append(out.Metrics, to)
	}
	return out
}

type tick struct {
	Worker    string    `json:"worker"`
	WrittenAt time.Time `json:"written_at"`
}

// configuration is a WindowConfiguration under the names of its schema.
type configuration struct {
	Generation int32          `json:"generation"`
	From       time.Time      `json:"from"`
	Durations  map[string]any `json:"durations"`
	Limits     map[string]any `json:"limits"`
	Reducer    int32          `json:"reducer"`
}

func configurationOf(c *oona.WindowConfiguration) *configuration {
	span := func(m oona.Micros) string { return (time.Duration(m) * time.Microsecond).String() }
	return &configuration{
		Generation: c.Generation, From: c.From.Time(), Reducer: c.Reducer,
		Durations: map[string]any{
			"length": span(c.Length), "out_of_orderness": span(c.OutOfOrderness), "allowed_lateness": span(c.AllowedLateness),
			"tick_interval": span(c.TickInterval), "idle_horizon": span(c.IdleHorizon), "max_skew": span(c.MaxSkew), "max_delay": span(c.MaxDelay),
		},
		Limits: map[string]any{
			"max_timelines": c.MaxTimelines, "max_accumulators": c.MaxAccumulators, "max_timeline_accumulators": c.MaxTimelineAccumulators,
			"max_layers": c.MaxLayers, "max_metrics": c.MaxMetrics, "max_seeds": c.MaxSeeds,
			"frontier_slots": c.FrontierSlots, "worst_seeds": c.WorstSeeds,
		},
	}
}
