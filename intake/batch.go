package intake

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Config has the limits of bodies and frames, and makes the claims of tensors.
type Config struct {
	Frame                oona.FrameLimits
	MaxFrames            int   // maximum number of frames in a body
	MaxDecompressedBytes int64 // maximum size of all blocks of an object container file, decompressed
	MaxRecordBytes       int   // maximum size of an encoded frame

	Events oona.Topics // the topics of events

	Claims            Claims // nil: all tensors stay in their frames
	InlineTensorBytes int    // maximum size of a tensor that stays in its frame
}

// Claims makes claims of tensors from their content, without I/O.
type Claims interface {
	Claim(content []byte) oona.TensorClaim
	Check(claim oona.TensorClaim) error
}

// Memory limits the memory that a batch uses. Grow takes bytes, or returns false if they are not free.
// Shrink gives bytes back.
type Memory interface {
	Grow(bytes int) bool
	Shrink(bytes int)
}

// Batch holds the records that are made from one body.
type Batch struct {
	Path   string // value of oona.HeaderPath
	Trace  string // value of oona.HeaderTraceparent; may be empty
	Bytes  int    // size of the body
	Memory Memory // nil: there is no limit

	// Permit refuses valid frames that the client may not send. If it is nil, the client may send any
	// frame.
	Permit func(*oona.Frame) *Refusal

	// Judge says which frames will be put aside. If it is nil, this is not known.
	Judge Judge
	// Strict refuses the batch if a frame will be put aside.
	Strict bool

	// Schema finds schemas in a schema registry. If it is nil, there is no registry, and
	// bodies that need one are refused.
	Schema func(avro.SchemaID) (*avro.FrameSchema, *Refusal)

	// PermitEvent is like Permit, for events. The producer may be empty.
	PermitEvent func(oona.RunID, oona.ProducerID) *Refusal

	Messages []*message.Message
	Topics   []string // the topic of each message if they are events; nil if they are frames
	Readings int
	Tensors  []Tensor // the tensors that the messages refer to
	Aside    []Aside  // how many of the messages will be put aside, for each reason

	cfg      *Config
	decoders int // bytes of Memory that the decoder's buffers use during decoding
	copies   int // bytes of Memory for tensors that are being stored
}

// MessageBytes is roughly the memory that a message takes besides its payload: its metadata,
// its key, and the copy in the form of the bus.
const MessageBytes = 1 << 10

// NewBatch returns an empty batch.
func (c *Config) NewBatch() *Batch { return &Batch{cfg: c} }

// hold reserves memory for the batch.
func (b *Batch) hold(bytes int) *Refusal {
	if b.Memory == nil || b.Memory.Grow(bytes) {
		return nil
	}
	return Refuse(ReasonOverloaded, "ingest has no free memory for this request; send it again later")
}

// decoded gives back the memory that only decoding needs.
func (b *Batch) decoded() {
	if b.Memory != nil {
		b.Memory.Shrink(b.decoders)
	}
	b.decoders = 0
}

// add appends the record of a valid frame. value is as for take.
func (b *Batch) add(f *oona.Frame, value []byte) *Refusal {
	replaced, refused := b.claimTensors(f)
	if refused != nil {
		return refused
	}
	if replaced || value == nil {
		value = avro.AppendFrame(nil, f)
		if refused := b.hold(cap(value)); refused != nil {
			return refused
		}
	}
	// Each part of a split frame repeats the ids and names, so the suggested parts have only three
	// quarters of the limit.
	if limit := b.cfg.MaxRecordBytes; len(value) > limit {
		return Refuse(ReasonTooLarge,
			"has %d bytes encoded, and the bus accepts at most %d; split it by seed ids into frames with different sequence numbers and at most %d seeds each",
			len(value), limit, max(1, len(f.Seeds)*limit/len(value)*3/4)).Of(len(b.Messages), "")
	}
	if refused := b.hold(MessageBytes); refused != nil {
		return refused
	}
	m := bus.NewMessage(value, bus.Target{Key: oona.Key(f.Run, f.Layer)})
	m.Metadata.Set(oona.HeaderPath, b.Path)
	if b.Trace != "" {
		m.Metadata.Set(oona.HeaderTraceparent, b.Trace)
	}
	b.Messages = append(b.Messages, m)
	b.Readings += len(f.Seeds)
	return nil
}
