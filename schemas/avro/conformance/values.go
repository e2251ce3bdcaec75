package conformance

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/morphogenetic/oona"
)

// Frame has the fields of a frame in the format of the files.
type Frame struct {
	Run        oona.RunID      `json:"run_id"`
	Layer      oona.LayerID    `json:"layer_id"`
	Timeline   oona.TimelineID `json:"timeline"`
	Producer   oona.ProducerID `json:"producer_id"`
	Epoch      Long            `json:"producer_epoch"`
	Sequence   Long            `json:"sequence"`
	ObservedAt Long            `json:"observed_at"`
	Step       Long            `json:"step"`
	Seeds      []oona.SeedID   `json:"seed_ids"`
	States     []int           `json:"states"`
	Metrics    []Column        `json:"metrics"`
	Tensors    []Tensor        `json:"tensors"`
}

// Column is a metric of a Frame.
type Column struct {
	Name   string
	Values []Double
}

// Tensor is a tensor of a Frame.
type Tensor struct {
	Name  string
	Seed  oona.SeedID `json:"seed_id"`
	DType string
	Shape []Long
	Data  Data
}

// Data is the content of a tensor, or its claim.
type Data struct {
	Bytes []byte
	Claim *Claim
}

// Claim is the claim of a tensor.
type Claim struct {
	Bucket string
	Key    string
	Size   Long
	SHA256 Hex
}

// UnmarshalJSON implements [json.Unmarshaler]. The content is in base64.
func (d *Data) UnmarshalJSON(text []byte) error {
	if text[0] == '{' {
		return json.Unmarshal(text, &d.Claim)
	}
	return json.Unmarshal(text, &d.Bytes)
}

// Long is an integer. A file has it as a string if it does not fit a double.
type Long int64

// UnmarshalJSON implements [json.Unmarshaler].
func (l *Long) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseInt(unquoted(text), 10, 64)
	*l = Long(n)
	return err
}

// Double is a number. A file has it as a string if JSON cannot write it as a number.
type Double float64

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Double) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseFloat(unquoted(text), 64) // ParseFloat accepts NaN and Infinity
	if math.IsNaN(n) {
		n = math.Float64frombits(0x7ff8000000000000) // math.NaN has another bit set
	}
	*d = Double(n)
	return err
}

func unquoted(text []byte) string {
	if n := len(text) - 1; n > 0 && text[0] == '"' && text[n] == '"' {
		return string(text[1:n])
	}
	return string(text)
}

// Oona returns the frame as an oona.Frame.
func (f *Frame) Oona() (*oona.Frame, error) {
	out := &oona.Frame{
		Run: f.Run, Layer: f.Layer, Timeline: f.Timeline, Producer: f.Producer,
		Epoch: oona.Micros(f.Epoch), Sequence: int64(f.Sequence), ObservedAt: oona.Micros(f.ObservedAt), Step: int64(f.Step),
		Seeds: f.Seeds,
	}
	for _, ordinal := range f.States {
		if ordinal < 0 || ordinal > 0xff {
			return nil, fmt.Errorf("conformance: a state of %d is not a byte", ordinal)
		}
		out.States = append(out.States, oona.State(ordinal))
	}
	for _, c := range f.Metrics {
		column := oona.Column{Name: c.Name}
		for _, v := range c.Values {
			column.Values = append(column.Values, float32(v))
		}
		out.Metrics = append(out.Metrics, column)
	}
	for _, t := range f.Tensors {
		tensor, err := t.oona()
		if err != nil {
			return nil, err
		}
		out.Tensors = append(out.Tensors, tensor)
	}
	return out, nil
}

func (t *Tensor) oona() (oona.Tensor, error) {
	out := oona.Tensor{Name: t.Name, Seed: t.Seed, DType: t.DType, Data: t.Data.Bytes}
	for _, n := range t.Shape {
		out.Shape = append(out.Shape, int64(n))
	}
	if c := t.Data.Claim; c != nil {
		out.Claim = &oona.TensorClaim{Bucket: c.Bucket, Key: c.Key, Size: int64(c.Size)}
		if len(c.SHA256) != len(out.Claim.SHA256) {
			return out, fmt.Errorf("conformance: a SHA-256 has %d bytes", len(c.SHA256))
		}
		copy(out.Claim.SHA256[:], c.SHA256)
	}
	return out, nil
}

// Event has the fields of an event in the format of the files. An event of version 1 has
// only those up to Evidence.
type Event struct {
	Run      oona.RunID   `json:"run_id"`
	Layer    oona.LayerID `json:"layer_id"`
	Seed     oona.SeedID  `json:"seed_id"`
	Sequence Long
	At       Long
	Step     Long
	From     int `json:"from_state"`
	To       int `json:"to_state"`
	Reason   string
	Evidence map[string]Double

	Command         string `json:"command_id"`
	Actor           string
	Node            string
	Session         Long
	Epoch           Long
	JournalIndex    Long   `json:"journal_index"`
	Blueprint       string `json:"blueprint_id"`
	Mark            string
	TriggerPosition Long  `json:"trigger_position"`
	TriggerIndex    int32 `json:"trigger_index"`
	Incarnation     Long
	Timeline        oona.TimelineID
	Producer        oona.ProducerID `json:"producer_id"`
	ProducerEpoch   Long            `json:"producer_epoch"`
}

// Marks are the names of an event's marks, by ordinal.
var Marks = []string{"NORMAL", "ADOPTED", "REWOUND"}

// Oona returns the event as an oona.SeedEvent. The states must fit into a byte.
func (e *Event) Oona() *oona.SeedEvent {
	out := &oona.SeedEvent{
		Run: e.Run, Layer: e.Layer, Seed: e.Seed, Sequence: int64(e.Sequence), At: oona.Micros(e.At), Step: int64(e.Step),
		From: oona.State(e.From), To: oona.State(e.To), Reason: e.Reason, //nolint:gosec // see above
		Evidence: make(map[string]float64, len(e.Evidence)),
		Command:  e.Command, Actor: e.Actor, Node: e.Node, Session: int64(e.Session), Epoch: int64(e.Epoch), JournalIndex: int64(e.JournalIndex),
		Blueprint: e.Blueprint, TriggerPosition: int64(e.TriggerPosition), TriggerIndex: e.TriggerIndex, Incarnation: oona.Incarnation(e.Incarnation),
		Timeline: e.Timeline, Producer: e.Producer, ProducerEpoch: int64(e.ProducerEpoch),
	}
	for name, v := range e.Evidence {
		out.Evidence[name] = float64(v)
	}
	for ordinal, name := range Marks {
		if name == e.Mark {
			out.Mark = oona.EventMark(ordinal) //nolint:gosec // there are three
		}
	}
	return out
}

// End has the fields of the end of a run in the format of the files.
type End struct {
	Run           oona.RunID `json:"run_id"`
	At            Long
	Step          Long
	Outcome       string
	Reason        string
	Timeline      oona.TimelineID
	Producer      oona.ProducerID `json:"producer_id"`
	ProducerEpoch Long            `json:"producer_epoch"`
}

// Oona returns the end as an oona.RunEnd.
func (e *End) Oona() (*oona.RunEnd, error) {
	outcome, err := oona.ParseRunOutcome(e.Outcome)
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	return &oona.RunEnd{
		Run: e.Run, At: oona.Micros(e.At), Step: int64(e.Step), Outcome: outcome, Reason: e.Reason,
		Timeline: e.Timeline, Producer: e.Producer, ProducerEpoch: int64(e.ProducerEpoch),
	}, nil
}
