package intake

import (
	"bytes"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/schemas/avro"
)

// RegistrySchemaHeader is the header in which the serializers of a schema registry name the
// schema of a value, if they do not put it into the value.
const RegistrySchemaHeader = "__value_schema_id"

// Record decodes a record of the raw topic. The record may have any encoding that a request
// may have; its first bytes show which.
func (d *Decoder) Record(msg *message.Message, b *Batch, maxBytes int64) *Refusal {
	value := []byte(msg.Payload)
	b.Bytes = len(value)
	if int64(len(value)) > maxBytes {
		return Refuse(ReasonTooLarge,
			"the value has %d bytes, and the limit is %s (--max-body-bytes); publish fewer frames per record, or split the frame by seed ids", len(value), size.Text(maxBytes))
	}
	text := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(text) == 0:
		return Refuse(ReasonUndecodable, "the value is empty; send at least one frame")
	case msg.Metadata.Get(RegistrySchemaHeader) != "":
		id, err := avro.ParseSchemaID(msg.Metadata.Get(RegistrySchemaHeader))
		if err != nil {
			return Refuse(ReasonUndecodable, "the header %s has no valid schema id: %v", RegistrySchemaHeader, err)
		}
		return d.RegisteredBody(id, value, b)
	case avro.IsRegistered(value):
		return d.Registered(value, b)
	case bytes.HasPrefix(value, []byte("\xc3\x01")), IsContainer(value):
		return d.Avro(value, b)
	case text[0] == '{', text[0] == '[':
		return d.JSON(value, b)
	}
	return Refuse(ReasonUndecodable, "the value begins with % x, which is neither single-object Avro (c3 01), nor an object container file, nor JSON; to compress, use the producer's compression.type", value[:min(len(value), 4)])
}
