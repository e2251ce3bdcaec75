package intake

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona/schemas/avro"
)

// Registered decodes frames that serializers of a schema registry have written. The body has one
// frame after the other, each with the id of its schema in front.
func (d *Decoder) Registered(body []byte, b *Batch) *Refusal {
	defer b.decoded()
	for rest := body; len(rest) > 0; {
		i := len(b.Messages)
		id, value, err := avro.CutSchemaID(rest)
		if err != nil {
			p := refuseFrame(i, err)
			if i > 0 {
				p.Detail += fmt.Sprintf(" (the frame begins at byte %d of the body, after %d complete frames)", len(body)-len(rest), i)
			}
			return p
		}
		var refused *Refusal
		if rest, refused = d.registered(id, value, b); refused != nil {
			return refused
		}
	}
	return nil
}

// RegisteredBody decodes a frame that was written with the given schema, and that has no schema id
// in front.
func (d *Decoder) RegisteredBody(id avro.SchemaID, body []byte, b *Batch) *Refusal {
	defer b.decoded()
	rest, refused := d.registered(id, body, b)
	if refused == nil && len(rest) > 0 {
		refused = Refuse(ReasonUndecodable, "%d bytes follow the frame of schema %s; send one frame with this schema id", len(rest), id)
	}
	return refused
}

// registered decodes the frame at the start of body.
func (d *Decoder) registered(id avro.SchemaID, body []byte, b *Batch) (rest []byte, _ *Refusal) {
	if b.Schema == nil {
		return nil, Refuse(ReasonUndecodable, "the body begins with a schema id of a schema registry, but ingest has no registry; configure one (--registry-url), or send single-object encoding, which begins with c3 01")
	}
	schema, refused := b.Schema(id)
	if refused != nil {
		return nil, refused.Of(len(b.Messages), "")
	}
	if !schema.Published() {
		return d.foreignFrame(schema, body, b)
	}
	rest, err := d.avro.DecodeWith(schema, body, &d.frame)
	if err != nil {
		return nil, refuseFrame(len(b.Messages), err)
	}
	value := body[:len(body)-len(rest)]
	if refused := b.hold(avro.SingleSize(len(value))); refused != nil {
		return nil, refused
	}
	return rest, d.take(b, schema.Single(value))
}

// foreignMemory is the maximum number of bytes that the values of a frame take for each byte of
// the body: an empty tensor has 6 bytes, and 100 once it is decoded.
const foreignMemory = 16

// foreignFrame decodes a frame whose schema is not a published one. It encodes the frame again
// for the record, because readers of the log do not know that schema.
func (d *Decoder) foreignFrame(schema *avro.FrameSchema, body []byte, b *Batch) (rest []byte, _ *Refusal) {
	// In no schema is a frame larger than twice its record, unless the schema has other fields.
	window := body[:min(len(body), 2*b.cfg.MaxRecordBytes)]
	if refused := b.hold(foreignMemory * len(window)); refused != nil {
		return nil, refused
	}
	after, err := d.avro.DecodeWith(schema, window, &d.frame)
	if b.Memory != nil {
		defer b.Memory.Shrink(foreignMemory * len(window))
	}
	switch {
	case errors.Is(err, avro.ErrTruncated) && len(window) < len(body):
		return nil, Refuse(ReasonTooLarge, "has more than %d bytes in the encoding of its schema; split it by seed ids", len(window)).Of(len(b.Messages), "")
	case err != nil:
		return nil, refuseFrame(len(b.Messages), err)
	}
	return body[len(window)-len(after):], d.take(b, nil)
}
