package ingest

import (
	"bytes"

	"github.com/ThreeDotsLabs/watermill/message"
)

// registrySchema is the header in which clients of a schema registry give the schema of
// a value, if the value itself does not.
const registrySchema = "__value_schema_id"

// rawFrames decodes a record of the raw topic into b. A record may have the same
// encodings as a request. Its first bytes tell which.
func (d *decoders) rawFrames(msg *message.Message, b *batch) (*batch, *refusal) {
	if trace := msg.Metadata.Get(traceParent); validTraceParent(trace) {
		b.trace = trace
	}
	value := []byte(msg.Payload)
	b.bytes = len(value)
	if int64(len(value)) > b.cfg.MaxBodyBytes {
		return nil, refuse(reasonTooLarge,
			"the value has %d bytes, more than %d (--max-body-bytes); publish fewer frames per record, or split the frame by seed ids", len(value), b.cfg.MaxBodyBytes)
	}
	decode, refused := rawDecoder(value, msg.Metadata.Get(registrySchema) != "")
	if refused == nil {
		refused = decode(d, value, b)
	}
	if refused != nil {
		return nil, refused
	}
	return b, nil
}

func rawDecoder(value []byte, headed bool) (decodeFunc, *refusal) {
	refuse := func(format string, args ...any) (decodeFunc, *refusal) {
		return nil, refuse(reasonUndecodable, format, args...)
	}
	text := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(text) == 0:
		return refuse("the value is empty; send at least one frame")
	case headed || value[0] == 0:
		return refuse("the value is Avro with the prefix or header of a schema registry, and ingest has no registry; send single-object encoding, which begins with c3 01, without %s", registrySchema)
	case bytes.HasPrefix(value, []byte("\xc3\x01")), isContainer(value):
		return (*decoders).avroFrames, nil
	case text[0] == '{', text[0] == '[':
		return (*decoders).jsonFrames, nil
	}
	return refuse("the value begins with % x, which is neither single-object Avro (c3 01), nor an object container file, nor JSON; to compress, use the producer's compression.type", value[:min(len(value), 4)])
}
