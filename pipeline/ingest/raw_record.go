package ingest

import (
	"bytes"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/morphogenetic/oona/intake"
)

// registrySchema is the header in which clients of a schema registry give the schema of
// a value, if the value itself does not.
const registrySchema = "__value_schema_id"

// decodeRaw decodes a record of the raw topic into b. A record may have the same
// encodings as a request. Its first bytes tell which.
func decodeRaw(d *intake.Decoder, msg *message.Message, b *intake.Batch, maxBytes int64) *intake.Refusal {
	if trace := msg.Metadata.Get(intake.TraceParent); validTraceParent(trace) {
		b.Trace = trace
	}
	value := []byte(msg.Payload)
	b.Bytes = len(value)
	if int64(len(value)) > maxBytes {
		return intake.Refuse(intake.ReasonTooLarge,
			"the value has %d bytes, more than %d (--max-body-bytes); publish fewer frames per record, or split the frame by seed ids", len(value), maxBytes)
	}
	text := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(text) == 0:
		return intake.Refuse(intake.ReasonUndecodable, "the value is empty; send at least one frame")
	case msg.Metadata.Get(registrySchema) != "" || value[0] == 0:
		return intake.Refuse(intake.ReasonUndecodable, "the value is Avro with the prefix or header of a schema registry, and ingest has no registry; send single-object encoding, which begins with c3 01, without %s", registrySchema)
	case bytes.HasPrefix(value, []byte("\xc3\x01")), intake.IsContainer(value):
		return d.Avro(value, b)
	case text[0] == '{', text[0] == '[':
		return d.JSON(value, b)
	}
	return intake.Refuse(intake.ReasonUndecodable, "the value begins with % x, which is neither single-object Avro (c3 01), nor an object container file, nor JSON; to compress, use the producer's compression.type", value[:min(len(value), 4)])
}
