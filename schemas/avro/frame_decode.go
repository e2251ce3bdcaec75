package avro

import (
	"fmt"
	"io"
	"unsafe"

	"github.com/morphogenetic/oona"
)

// FrameDecoder decodes frames into buffers that it reuses. The zero value is ready to
// use. It is not safe for concurrent use.
type FrameDecoder struct {
	// Limits are the most entries that arrays may have, 0 for no limit. Decode
	// returns an error that wraps oona.ErrTooLarge as soon as a count exceeds its
	// limit, because a column or a tensor of a few bytes can take a hundred bytes
	// of memory. (A frame of an older version is decoded before it is checked.)
	// Shapes always have a limit.
	Limits oona.FrameLimits

	schemas *registry // nil for the published schemas
	names   interner
	seeds   []oona.SeedID
	states  []oona.State
	columns []oona.Column
	values  []float32 // values of all columns, one column after the other
	tensors []oona.Tensor
	shapes  []int64 // shapes of all tensors, one after the other
	claims  []oona.TensorClaim
	flate   io.Reader // decompressor of the last block of a container, for reuse
}

// Size returns approximately how many bytes the decoder keeps for reuse.
func (d *FrameDecoder) Size() int {
	return d.names.bytes + 4*cap(d.seeds) + cap(d.states) + 4*cap(d.values) + 8*cap(d.shapes) +
		int(unsafe.Sizeof(oona.Column{}))*cap(d.columns) + int(unsafe.Sizeof(oona.Tensor{}))*cap(d.tensors) + int(unsafe.Sizeof(oona.TensorClaim{}))*cap(d.claims)
}

// Decode decodes the frame at the start of data and returns the rest of data. The slices
// of f are valid until the next call, and the Data of tensors as long as data does not
// change. Strings remain valid. After an error, which is a *DecodeError, f must not be
// used: its slices from an earlier call may have been overwritten.
//
// Decode checks the structure and the limits, not what the values mean: see
// oona.Frame.Validate. If a frame has the same ids and metrics as earlier ones, Decode
// allocates memory only for the keys of claims.
func (d *FrameDecoder) Decode(data []byte, f *oona.Frame) (rest []byte, err error) {
	fp, err := readFraming(data)
	if err != nil {
		return nil, err
	}
	if fp == seedMetricsV1 {
		return d.decodeV1(data, framingSize, f)
	}
	schemas := d.schemas
	if schemas == nil {
		schemas = published
	}
	v, err := schemas.find(data, seedMetrics)
	if err != nil {
		return nil, err
	}
	return d.decodeResolved(v, data[framingSize:], f)
}

func (d *FrameDecoder) decodeResolved(v *version, body []byte, f *oona.Frame) ([]byte, error) {
	var w wireFrame
	rest, err := v.decodeBody(body, &w)
	if err != nil {
		return nil, err
	}
	if err := d.checkLimits(&w); err != nil {
		return nil, err
	}
	if err := w.frame(f); err != nil {
		return nil, err
	}
	return rest, nil
}

func (d *FrameDecoder) checkLimits(w *wireFrame) error {
	for _, l := range []struct {
		field    string
		n, limit int
	}{
		{"seed_ids", len(w.Seeds), d.Limits.Seeds},
		{"metrics", len(w.Metrics), d.Limits.Metrics},
		{"tensors", len(w.Tensors), d.Limits.Tensors},
	} {
		if l.limit > 0 && l.n > l.limit {
			return &DecodeError{l.field, -1, tooLarge(l.field, l.limit)}
		}
	}
	for i, t := range w.Tensors {
		if len(t.Shape) > oona.MaxDimensions {
			return &DecodeError{fmt.Sprintf("tensors[%d].shape", i), -1, tooLarge("shape", oona.MaxDimensions)}
		}
	}
	return nil
}

func tooLarge(array string, limit int) error {
	return fmt.Errorf("%w: it %s", oona.ErrTooLarge, oona.TooMany(array, limit))
}

// decodeV1 reads the fields of seed_metrics.v1.avsc in their order, from data[at:].
func (d *FrameDecoder) decodeV1(data []byte, at int, f *oona.Frame) ([]byte, error) {
	c := cursor{data: data, at: at}
	head := oona.Frame{
		Run:        oona.RunID(d.names.text(c.bytes("run_id"))),
		Layer:      oona.LayerID(d.names.text(c.bytes("layer_id"))),
		Timeline:   oona.TimelineID(d.names.text(c.bytes("timeline"))),
		Producer:   oona.ProducerID(d.names.text(c.bytes("producer_id"))),
		Epoch:      oona.Micros(c.long("producer_epoch")),
		Sequence:   c.long("sequence"),
		ObservedAt: oona.Micros(c.long("observed_at")),
		Step:       c.long("step"),
	}
	d.decodeSeeds(&c)
	d.states = decodeStates(d.states[:0], c.bytes("states"))
	d.decodeColumns(&c)
	d.decodeTensors(&c)
	if c.err != nil {
		return nil, c.err
	}
	*f = head
	f.Seeds, f.States, f.Metrics, f.Tensors = d.seeds, d.states, d.columns, d.tensors
	return data[c.at:], nil
}

func (d *FrameDecoder) decodeSeeds(c *cursor) {
	d.seeds = d.seeds[:0]
	for {
		b := c.block("seed_ids", 1)
		if b.count == 0 || !within(c, "seed_ids", len(d.seeds)+b.count, d.Limits.Seeds) {
			return
		}
		d.seeds = c.seedIDs(d.seeds, b.count)
		c.endBlock("seed_ids", b)
	}
}

// within reports whether an array has at most limit entries. If not, it sets the error.
func within(c *cursor, field string, n, limit int) bool {
	if limit > 0 && n > limit && c.err == nil {
		c.err = &DecodeError{field, c.at, tooLarge(field, limit)}
	}
	return c.err == nil
}

func (d *FrameDecoder) decodeColumns(c *cursor) {
	const least = 2 // bytes of an empty name and an empty array
	before := d.columns[:cap(d.columns)]
	d.columns, d.values = d.columns[:0], d.values[:0]
	for {
		b := c.block("metrics", least)
		if b.count == 0 || !within(c, "metrics", len(d.columns)+b.count, d.Limits.Metrics) {
			return
		}
		for range b.count {
			i := len(d.columns)
			name := c.bytes("name")
			first := len(d.values)
			d.decodeValues(c)
			if c.err != nil {
				c.within("metrics", i)
				return
			}
			column := oona.Column{Values: d.values[first:len(d.values):len(d.values)]}
			// Most frames have the same columns as the one before.
			if i < len(before) && before[i].Name == string(name) {
				column.Name = before[i].Name
			} else {
				column.Name = d.names.text(name)
			}
			d.columns = append(d.columns, column)
		}
		c.endBlock("metrics", b)
	}
}

func (d *FrameDecoder) decodeValues(c *cursor) {
	const size = 4 // bytes of a float
	first := len(d.values)
	for {
		b := c.block("values", size)
		if b.count == 0 || !within(c, "values", len(d.values)-first+b.count, d.Limits.Seeds) {
			return
		}
		d.values = decodeFloats(d.values, c.take("values", int64(size*b.count)))
		c.endBlock("values", b)
	}
}

func (d *FrameDecoder) decodeTensors(c *cursor) {
	const least = 6 // bytes of two empty strings, an id, an empty shape, a branch and empty data
	d.tensors, d.shapes, d.claims = d.tensors[:0], d.shapes[:0], d.claims[:0]
	for {
		b := c.block("tensors", least)
		if b.count == 0 || !within(c, "tensors", len(d.tensors)+b.count, d.Limits.Tensors) {
			return
		}
		for range b.count {
			t := d.decodeTensor(c)
			if c.err != nil {
				c.within("tensors", len(d.tensors))
				return
			}
			d.tensors = append(d.tensors, t)
		}
		c.endBlock("tensors", b)
	}
}

func (d *FrameDecoder) decodeTensor(c *cursor) oona.Tensor {
	t := oona.Tensor{
		Name:  d.names.text(c.bytes("name")),
		Seed:  oona.SeedID(c.int("seed_id")),
		DType: d.names.text(c.bytes("dtype")),
		Shape: d.decodeShape(c),
	}
	switch branch := c.int("data"); branch {
	case branchBytes:
		t.Data = c.bytes("data")
	case branchClaim:
		t.Claim = d.decodeClaim(c)
	default:
		c.fail("data", ErrMalformed, "a union index of %d, the branches are 0 and 1", branch)
	}
	return t
}

func (d *FrameDecoder) decodeShape(c *cursor) []int64 {
	first := len(d.shapes)
	for {
		b := c.block("shape", 1)
		if b.count == 0 || !within(c, "shape", len(d.shapes)-first+b.count, oona.MaxDimensions) {
			return d.shapes[first:len(d.shapes):len(d.shapes)]
		}
		for range b.count {
			d.shapes = append(d.shapes, c.long("shape"))
		}
		c.endBlock("shape", b)
	}
}

func (d *FrameDecoder) decodeClaim(c *cursor) *oona.TensorClaim {
	claim := oona.TensorClaim{
		Bucket: d.names.text(c.bytes("data.bucket")),
		Key:    string(c.bytes("data.key")), // a key is rarely used twice
		Size:   c.long("data.size"),
	}
	copy(claim.SHA256[:], c.take("data.sha256", int64(len(claim.SHA256))))
	d.claims = append(d.claims, claim)
	return &d.claims[len(d.claims)-1]
}
