package ingest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/morphogenetic/oona"
)

// jsonFrames decodes one frame as an object, or an array of frames.
func (d *decoders) jsonFrames(body []byte, b *batch) *refusal {
	if p := sniff(body, mediaJSON); p != nil {
		return p
	}
	if fault := syntaxFault(body); fault != "" {
		return refuse(reasonUndecodable, "%s", fault)
	}
	d.json.data, d.json.at = body, 0
	defer func() { d.json.data = nil }() // so that the pool keeps no body
	if d.json.next() != '[' {
		return d.jsonFrame(b)
	}
	var refused *refusal
	_ = d.json.array(func(i int) error { // its only error is errRefused
		if i == b.cfg.MaxFrames {
			refused = tooManyFrames(b.cfg.MaxFrames)
		} else {
			refused = d.jsonFrame(b)
		}
		if refused != nil {
			return errRefused
		}
		return nil
	})
	if refused == nil && len(b.messages) == 0 {
		return refuse(reasonUndecodable, "the array is empty; send at least one frame")
	}
	return refused
}

// errRefused ends the reading of an array. The refusal says why.
var errRefused = errors.New("refused")

func (d *decoders) jsonFrame(b *batch) *refusal {
	if err := d.json.frame(&d.frame); err != nil {
		return refuseFrame(len(b.messages), err)
	}
	return d.take(b, nil)
}

// jsonDecoder decodes frames from JSON into buffers that it uses again. The slices of
// a frame are valid until the next frame.
type jsonDecoder struct {
	jsonReader
	limits  oona.FrameLimits
	seeds   []oona.SeedID
	states  []oona.State
	columns []oona.Column
	values  []float32 // of all columns, one after the other
	tensors []oona.Tensor
	shapes  []int64 // of all tensors, one after the other
}

// size returns how many bytes the buffers have.
func (d *jsonDecoder) size() int {
	return 4*cap(d.seeds) + cap(d.states) + 4*cap(d.values) + 8*cap(d.shapes) +
		int(unsafe.Sizeof(oona.Column{}))*cap(d.columns) + int(unsafe.Sizeof(oona.Tensor{}))*cap(d.tensors)
}

// The members of JSON objects are the fields of seed_metrics.v1.avsc. Fields that have
// a default there are optional.
var (
	frameFields = []jsonField{
		{name: "run_id"}, {name: "layer_id"}, {name: "timeline", optional: true}, {name: "producer_id"},
		{name: "producer_epoch"}, {name: "sequence"}, {name: "observed_at"}, {name: "step", optional: true},
		{name: "seed_ids"}, {name: "states"}, {name: "metrics", optional: true}, {name: "tensors", optional: true},
	}
	columnFields = []jsonField{{name: "name"}, {name: "values"}}
	tensorFields = []jsonField{{name: "name"}, {name: "seed_id"}, {name: "dtype"}, {name: "shape"}, {name: "data"}}
	claimFields  = []jsonField{{name: "bucket"}, {name: "key"}, {name: "size"}, {name: "sha256"}}
)

func (d *jsonDecoder) frame(f *oona.Frame) error {
	*f = oona.Frame{}
	return d.object("a frame", frameFields, func(field int) error { return d.frameField(f, frameFields[field].name) })
}

func (d *jsonDecoder) frameField(f *oona.Frame, name string) (err error) {
	switch name {
	case "run_id":
		err = readID(d, &f.Run)
	case "layer_id":
		err = readID(d, &f.Layer)
	case "timeline":
		err = readID(d, &f.Timeline)
	case "producer_id":
		err = readID(d, &f.Producer)
	case "producer_epoch":
		err = readLong(d, &f.Epoch)
	case "sequence":
		err = readLong(d, &f.Sequence)
	case "observed_at":
		err = readLong(d, &f.ObservedAt)
	case "step":
		err = readLong(d, &f.Step)
	case "seed_ids":
		err = d.readSeeds()
		f.Seeds = d.seeds
	case "states":
		err = d.readStates()
		f.States = d.states
	case "metrics":
		err = d.readColumns()
		f.Metrics = d.columns
	case "tensors":
		err = d.readTensors()
		f.Tensors = d.tensors
	}
	return err
}

func readID[T ~string](d *jsonDecoder, id *T) error {
	text, err := d.text()
	*id = T(text)
	return err
}

func readLong[T ~int64](d *jsonDecoder, v *T) error {
	n, err := d.integer(64)
	*v = T(n)
	return err
}

func (d *jsonDecoder) readSeeds() error {
	d.seeds = d.seeds[:0]
	return d.entries("seed_ids", d.limits.Seeds, func() error {
		id, err := d.integer(32)
		d.seeds = append(d.seeds, oona.SeedID(id))
		return err
	})
}

func (d *jsonDecoder) readStates() error {
	d.states = d.states[:0]
	return d.entries("states", d.limits.Seeds, func() error {
		state, err := d.state()
		d.states = append(d.states, state)
		return err
	})
}

// statesByName avoids the allocations of oona.ParseState for each reading.
var statesByName = func() map[string]oona.State {
	names := make(map[string]oona.State, oona.StateCount)
	for ordinal := range oona.StateCount {
		names[oona.State(ordinal).String()] = oona.State(ordinal)
	}
	return names
}()

// state reads a state by name or by ordinal.
func (d *jsonDecoder) state() (oona.State, error) {
	if d.isNumber() {
		ordinal, err := d.integer(32)
		if err == nil && (ordinal < 0 || ordinal > math.MaxUint8) {
			err = &oona.FieldError{Reason: fmt.Sprintf("is ordinal %d; states are 0 to %d", ordinal, oona.StateCount-1)}
		}
		return oona.State(ordinal), err // Validate checks whether the ordinal exists
	}
	if d.next() != '"' {
		return 0, d.mismatch("the name or ordinal of a state")
	}
	name, err := d.text()
	if err != nil {
		return 0, err
	}
	if state, ok := statesByName[string(name)]; ok {
		return state, nil
	}
	state, err := oona.ParseState(clip(name))
	if err != nil {
		return 0, &oona.FieldError{Reason: err.Error()}
	}
	return state, nil
}

func (d *jsonDecoder) readColumns() error {
	d.columns, d.values = d.columns[:0], d.values[:0]
	return d.entries("metrics", d.limits.Metrics, func() error {
		var column oona.Column
		first := len(d.values)
		err := d.object("a metric", columnFields, func(field int) error {
			if columnFields[field].name == "name" {
				return readID(d, &column.Name)
			}
			return d.entries("values", d.limits.Seeds, func() error {
				v, err := d.sample()
				d.values = append(d.values, v)
				return err
			})
		})
		column.Values = d.values[first:len(d.values):len(d.values)]
		d.columns = append(d.columns, column)
		return err
	})
}

func (d *jsonDecoder) readTensors() error {
	d.tensors, d.shapes = d.tensors[:0], d.shapes[:0]
	return d.entries("tensors", d.limits.Tensors, func() error {
		var t oona.Tensor
		err := d.object("a tensor", tensorFields, func(field int) error { return d.tensorField(&t, tensorFields[field].name) })
		d.tensors = append(d.tensors, t)
		return err
	})
}

func (d *jsonDecoder) tensorField(t *oona.Tensor, name string) error {
	switch name {
	case "name":
		return readID(d, &t.Name)
	case "dtype":
		return readID(d, &t.DType)
	case "seed_id":
		id, err := d.integer(32)
		t.Seed = oona.SeedID(id)
		return err
	case "shape":
		first := len(d.shapes)
		err := d.entries("shape", oona.MaxDimensions, func() error {
			n, err := d.integer(64)
			d.shapes = append(d.shapes, n)
			return err
		})
		t.Shape = d.shapes[first:len(d.shapes):len(d.shapes)]
		return err
	}
	return d.tensorData(t)
}

// tensorData reads data in base64, or a claim.
func (d *jsonDecoder) tensorData(t *oona.Tensor) error {
	switch d.next() {
	case '"':
		text, err := d.text()
		if err != nil {
			return err
		}
		data, err := base64.StdEncoding.AppendDecode([]byte{}, text)
		if err != nil {
			return &oona.FieldError{Reason: fmt.Sprintf("is not base64: %v", err)}
		}
		t.Data = data
		return nil
	case '{':
		t.Claim = new(oona.TensorClaim)
		return d.object("a claim", claimFields, func(field int) error { return d.claimField(t.Claim, claimFields[field].name) })
	}
	return d.mismatch("base64 or a claim")
}

func (d *jsonDecoder) claimField(c *oona.TensorClaim, name string) error {
	switch name {
	case "bucket":
		return readID(d, &c.Bucket)
	case "key":
		return readID(d, &c.Key)
	case "size":
		return readLong(d, &c.Size)
	}
	text, err := d.text()
	if err != nil {
		return err
	}
	if len(text) != hex.EncodedLen(len(c.SHA256)) {
		return &oona.FieldError{Reason: fmt.Sprintf("has %d characters; a SHA-256 has %d in hexadecimal", len(text), hex.EncodedLen(len(c.SHA256)))}
	}
	if _, err := hex.Decode(c.SHA256[:], text); err != nil {
		return &oona.FieldError{Reason: fmt.Sprintf("is not hexadecimal: %v", err)}
	}
	return nil
}
