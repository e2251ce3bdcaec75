package intake

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/morphogenetic/oona"
)

// JSON decodes one frame as an object, or an array of frames.
func (d *Decoder) JSON(body []byte, b *Batch) *Refusal {
	defer b.decoded()
	return d.jsonBody(body, b, "frame", d.jsonFrame)
}

// jsonBody decodes one object, or an array of objects, with a function that decodes one.
func (d *Decoder) jsonBody(body []byte, b *Batch, what string, one func(*Batch) *Refusal) *Refusal {
	if fault := syntaxFault(body); fault != "" {
		return Refuse(ReasonUndecodable, "%s", fault)
	}
	d.json.data, d.json.at = body, 0
	defer func() { d.json.data = nil }() // a decoder in a pool must not keep the body in memory
	if d.json.next() != '[' {
		return one(b)
	}
	var refused *Refusal
	_ = d.json.array(func(int) error { // its only error is errRefused
		if refused = one(b); refused != nil {
			return errRefused
		}
		return nil
	})
	if refused == nil && len(b.Messages) == 0 {
		return Refuse(ReasonUndecodable, "the array is empty; send at least one %s", what)
	}
	return refused
}

// errRefused ends the reading of an array. The refusal says why.
var errRefused = errors.New("refused")

func (d *Decoder) jsonFrame(b *Batch) *Refusal {
	if err := d.json.frame(&d.frame); err != nil {
		return refuseFrame(len(b.Messages), err)
	}
	return d.take(b, nil)
}

// jsonDecoder decodes frames from JSON into buffers that it reuses. The slices of a frame are
// valid until the next frame is decoded.
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

// size returns the size of the buffers in bytes.
func (d *jsonDecoder) size() int {
	return 4*cap(d.seeds) + cap(d.states) + 4*cap(d.values) + 8*cap(d.shapes) +
		int(unsafe.Sizeof(oona.Column{}))*cap(d.columns) + int(unsafe.Sizeof(oona.Tensor{}))*cap(d.tensors)
}

// The members of JSON objects are the fields of seed_metrics.v1.avsc. Fields that have
// a default there are optional.
var (
	frameFields = []jsonField[oona.Frame]{
		{name: "run_id", read: func(d *jsonDecoder, f *oona.Frame) error { return readID(d, &f.Run) }},
		{name: "layer_id", read: func(d *jsonDecoder, f *oona.Frame) error { return readID(d, &f.Layer) }},
		{name: "timeline", optional: true, read: func(d *jsonDecoder, f *oona.Frame) error { return readID(d, &f.Timeline) }},
		{name: "producer_id", read: func(d *jsonDecoder, f *oona.Frame) error { return readID(d, &f.Producer) }},
		{name: "producer_epoch", read: func(d *jsonDecoder, f *oona.Frame) error { return readLong(d, &f.Epoch) }},
		{name: "sequence", read: func(d *jsonDecoder, f *oona.Frame) error { return readLong(d, &f.Sequence) }},
		{name: "observed_at", read: func(d *jsonDecoder, f *oona.Frame) error { return readLong(d, &f.ObservedAt) }},
		{name: "step", optional: true, read: func(d *jsonDecoder, f *oona.Frame) error { return readLong(d, &f.Step) }},
		{name: "seed_ids", read: (*jsonDecoder).readSeeds},
		{name: "states", read: (*jsonDecoder).readStates},
		{name: "metrics", optional: true, read: (*jsonDecoder).readColumns},
		{name: "tensors", optional: true, read: (*jsonDecoder).readTensors},
	}
	columnFields = []jsonField[oona.Column]{
		{name: "name", read: func(d *jsonDecoder, c *oona.Column) error { return readID(d, &c.Name) }},
		{name: "values", read: (*jsonDecoder).readValues},
	}
	tensorFields = []jsonField[oona.Tensor]{
		{name: "name", read: func(d *jsonDecoder, t *oona.Tensor) error { return readID(d, &t.Name) }},
		{name: "seed_id", read: func(d *jsonDecoder, t *oona.Tensor) error { return d.readSeed(&t.Seed) }},
		{name: "dtype", read: func(d *jsonDecoder, t *oona.Tensor) error { return readID(d, &t.DType) }},
		{name: "shape", read: (*jsonDecoder).readShape},
		{name: "data", read: (*jsonDecoder).readData},
	}
	claimFields = []jsonField[oona.TensorClaim]{
		{name: "bucket", read: func(d *jsonDecoder, c *oona.TensorClaim) error { return readID(d, &c.Bucket) }},
		{name: "key", read: func(d *jsonDecoder, c *oona.TensorClaim) error { return readID(d, &c.Key) }},
		{name: "size", read: func(d *jsonDecoder, c *oona.TensorClaim) error { return readLong(d, &c.Size) }},
		{name: "sha256", read: (*jsonDecoder).readDigest},
	}
)

func (d *jsonDecoder) frame(f *oona.Frame) error {
	*f = oona.Frame{}
	return readObject(d, "a frame", frameFields, f)
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

func (d *jsonDecoder) readSeed(id *oona.SeedID) error {
	n, err := d.integer(32)
	*id = oona.SeedID(n)
	return err
}

func (d *jsonDecoder) readSeeds(f *oona.Frame) error {
	d.seeds = d.seeds[:0]
	err := d.entries("seed_ids", d.limits.Seeds, func() error {
		d.seeds = append(d.seeds, 0)
		return d.readSeed(&d.seeds[len(d.seeds)-1])
	})
	f.Seeds = d.seeds
	return err
}

func (d *jsonDecoder) readStates(f *oona.Frame) error {
	d.states = d.states[:0]
	err := d.entries("states", d.limits.Seeds, func() error {
		state, err := d.state()
		d.states = append(d.states, state)
		return err
	})
	f.States = d.states
	return err
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

func (d *jsonDecoder) readColumns(f *oona.Frame) error {
	d.columns, d.values = d.columns[:0], d.values[:0]
	err := d.entries("metrics", d.limits.Metrics, func() error {
		d.columns = append(d.columns, oona.Column{})
		return readObject(d, "a metric", columnFields, &d.columns[len(d.columns)-1])
	})
	f.Metrics = d.columns
	return err
}

func (d *jsonDecoder) readValues(c *oona.Column) error {
	first := len(d.values)
	err := d.entries("values", d.limits.Seeds, func() error {
		v, err := d.sample()
		d.values = append(d.values, v)
		return err
	})
	c.Values = d.values[first:len(d.values):len(d.values)]
	return err
}

func (d *jsonDecoder) readTensors(f *oona.Frame) error {
	d.tensors, d.shapes = d.tensors[:0], d.shapes[:0]
	err := d.entries("tensors", d.limits.Tensors, func() error {
		d.tensors = append(d.tensors, oona.Tensor{})
		return readObject(d, "a tensor", tensorFields, &d.tensors[len(d.tensors)-1])
	})
	f.Tensors = d.tensors
	return err
}

func (d *jsonDecoder) readShape(t *oona.Tensor) error {
	first := len(d.shapes)
	err := d.entries("shape", oona.MaxDimensions, func() error {
		n, err := d.integer(64)
		d.shapes = append(d.shapes, n)
		return err
	})
	t.Shape = d.shapes[first:len(d.shapes):len(d.shapes)]
	return err
}

// readData reads data in base64, or a claim.
func (d *jsonDecoder) readData(t *oona.Tensor) error {
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
		return readObject(d, "a claim", claimFields, t.Claim)
	}
	return d.mismatch("base64 or a claim")
}

func (d *jsonDecoder) readDigest(c *oona.TensorClaim) error {
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
