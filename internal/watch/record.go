package watch

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
)

// Record is the visible form of a record of the bus. A record of the raw topic with several frames
// becomes several Records.
type Record struct {
	Address   string    `json:"address"` // an address such as kasmina/telemetry/layer/enc.0/health, or the name of the topic if it has no address
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	At        time.Time `json:"at"`   // the append time
	Kind      string    `json:"kind"` // says which of the fields below is set
	Path      string    `json:"path,omitempty"`
	Side      *side     `json:"side,omitempty"`
	// Dropped is the reason why a reader must drop the rollup: an Outcome of package rollups.
	Dropped string `json:"dropped,omitempty"`
	// Begins is true if the rollup is the first of a new incarnation of the log.
	Begins bool `json:"new_incarnation,omitempty"`

	Frame         *frame          `json:"frame,omitempty"`
	JSON          json.RawMessage `json:"json,omitempty"` // a record of the raw topic
	Rollup        *rollup         `json:"rollup,omitempty"`
	Event         *Event          `json:"event,omitempty"`
	RunEnd        *RunEnd         `json:"run_end,omitempty"`
	Tick          *tick           `json:"tick,omitempty"`
	Configuration *configuration  `json:"configuration,omitempty"`
	Incarnation   *incarnation    `json:"incarnation,omitempty"`
	Setting       *setting        `json:"setting,omitempty"`
	Undecoded     *undecoded      `json:"undecoded,omitempty"`

	run    oona.RunID
	layer  oona.LayerID
	rollup *oona.Rollup // the rollup that the field Rollup shows
}

// The kinds of records.
const (
	kindFrame         = "frame"
	kindJSON          = "json"
	kindRollup        = "rollup"
	kindEvent         = "event"
	kindRunEnd        = "run_end"
	kindTick          = "tick"
	kindConfiguration = "configuration"
	kindIncarnation   = "incarnation"
	kindSetting       = "setting"
	kindUndecoded     = "undecoded"
)

// side says why a record is in a side topic, and where it was before.
type side struct {
	Reason      string `json:"reason"`
	Message     string `json:"message"`
	Topic       string `json:"topic"`
	Partition   string `json:"partition"`
	Offset      string `json:"offset"`
	Incarnation string `json:"incarnation,omitempty"`
	Stage       string `json:"stage"`
}

// undecoded is a value that was not decoded: its format is not known, or it is a dead letter.
type undecoded struct {
	Error string `json:"error,omitempty"`
	Bytes int    `json:"bytes"`
	Head  string `json:"head"` // the first bytes, in hexadecimal
}

// shownHead is the maximum number of bytes in undecoded.Head.
const shownHead = 32

func undecodedValue(value []byte, err error) *undecoded {
	u := &undecoded{Bytes: len(value), Head: hex.EncodeToString(value[:min(len(value), shownHead)])}
	if err != nil {
		u.Error = err.Error()
	}
	return u
}

// frame has the field names of seed_metrics.v1.avsc, as POST /v1/frames accepts them.
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

// sample and number are written in the JSON that ingest accepts: NaN as null, and infinities as
// strings.
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
	Data    any         `json:"data"` // the bytes of the tensor, or its claim
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

// frameOf copies the visible parts of f. If seed is not AnySeed, it copies only that seed, and
// returns nil if the frame does not have it.
func frameOf(f *oona.Frame, seed oona.SeedID) *frame {
	out := &frame{
		Run: f.Run, Layer: f.Layer, Timeline: f.Timeline, Producer: f.Producer, Epoch: f.Epoch,
		Sequence: f.Sequence, ObservedAt: f.ObservedAt, Step: f.Step, Metrics: []column{},
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
