package deadletters

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// anyFrame has limits above those of ingest, so that every frame can be shown and repaired.
var anyFrame = oona.FrameLimits{Seeds: 1 << 20, Metrics: 1 << 12, Tensors: 1 << 12}

// maxInflated limits the blocks of an object container file.
const maxInflated = 64 << 20

var errNoFrames = errors.New("it has no frames")

// decodeFrames returns the frames of a value of the seed-metrics topic or the raw topic,
// as POST /v1/frames takes them. They need not be valid.
func decodeFrames(d *avro.FrameDecoder, value []byte) (frames []json.RawMessage, err error) {
	text := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(text) == 0:
		return nil, errNoFrames
	case text[0] == '{':
		if !json.Valid(text) {
			return nil, errors.New("it is not JSON")
		}
		return []json.RawMessage{bytes.TrimSpace(text)}, nil
	case text[0] == '[':
		if err := json.Unmarshal(text, &frames); err != nil {
			return nil, fmt.Errorf("it is not JSON: %w", err)
		}
		return frames, nil
	}
	var frame oona.Frame
	add := func() error {
		line, err := json.Marshal(lineOf(&frame))
		frames = append(frames, line)
		return err
	}
	if intake.IsContainer(value) {
		err := d.DecodeContainer(value, maxInflated, nil, &frame, func([]byte) error { return add() })
		return frames, err
	}
	for rest := value; len(rest) > 0; {
		if rest, err = d.Decode(rest, &frame); err != nil {
			return nil, err
		}
		if err := add(); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

// ids are what a letter is selected by.
type ids struct {
	Run   oona.RunID   `json:"run_id"`
	Layer oona.LayerID `json:"layer_id"`
}

func frameIDs(frame json.RawMessage) (of ids) {
	_ = json.Unmarshal(frame, &of) // without ids, the letter has none
	return of
}

// frameLine is the JSON of a frame that may be invalid.
type frameLine struct {
	Run        oona.RunID      `json:"run_id"`
	Layer      oona.LayerID    `json:"layer_id"`
	Timeline   oona.TimelineID `json:"timeline,omitempty"`
	Producer   oona.ProducerID `json:"producer_id"`
	Epoch      oona.Micros     `json:"producer_epoch"`
	Sequence   int64           `json:"sequence"`
	ObservedAt oona.Micros     `json:"observed_at"`
	Step       int64           `json:"step"`
	Seeds      []oona.SeedID   `json:"seed_ids"`
	States     []any           `json:"states"` // names, or ordinals that have none
	Metrics    []columnLine    `json:"metrics"`
	Tensors    []tensorLine    `json:"tensors,omitempty"`
}

type columnLine struct {
	Name   string   `json:"name"`
	Values []sample `json:"values"`
}

type tensorLine struct {
	Name  string      `json:"name"`
	Seed  oona.SeedID `json:"seed_id"`
	DType string      `json:"dtype"`
	Shape []int64     `json:"shape"`
	Data  any         `json:"data"` // bytes, or a claim
}

type claimLine struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// sample is null if it is not measured, and a text if it is infinite.
type sample float32

// MarshalJSON implements json.Marshaler.
func (s sample) MarshalJSON() ([]byte, error) {
	v := float64(s)
	switch {
	case math.IsNaN(v):
		return []byte("null"), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	}
	return strconv.AppendFloat(nil, v, 'g', -1, 32), nil
}

func lineOf(f *oona.Frame) *frameLine {
	out := &frameLine{
		Run: f.Run, Layer: f.Layer, Timeline: f.Timeline, Producer: f.Producer, Epoch: f.Epoch,
		Sequence: f.Sequence, ObservedAt: f.ObservedAt, Step: f.Step,
		Seeds: append([]oona.SeedID{}, f.Seeds...), States: []any{}, Metrics: []columnLine{},
	}
	for _, s := range f.States {
		if s.Valid() {
			out.States = append(out.States, s.String())
		} else {
			out.States = append(out.States, int(s))
		}
	}
	for _, c := range f.Metrics {
		to := columnLine{c.Name, make([]sample, len(c.Values))}
		for i, v := range c.Values {
			to.Values[i] = sample(v)
		}
		out.Metrics = append(out.Metrics, to)
	}
	for _, t := range f.Tensors {
		to := tensorLine{t.Name, t.Seed, t.DType, append([]int64{}, t.Shape...), append([]byte{}, t.Data...)}
		if c := t.Claim; c != nil {
			to.Data = claimLine{c.Bucket, c.Key, c.Size, hex.EncodeToString(c.SHA256[:])}
		}
		out.Tensors = append(out.Tensors, to)
	}
	return out
}
