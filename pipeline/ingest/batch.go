package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// batch holds the records that are made of one request, or of one record of the
// raw topic.
type batch struct {
	cfg   *Config
	path  string // value of oona.HeaderPath
	trace string // trace context of the request; may be empty
	bytes int    // size of the body

	messages []*message.Message
	readings int
	tensors  []keptTensor // that the messages refer to

	held     *lease // memory that the batch uses
	decoders int    // part of held: buffers of the decoders, during decoding
	copies   int    // part of held: tensors that are being stored
}

// hold takes memory for the batch.
func (b *batch) hold(bytes int) *refusal {
	if b.held.grow(bytes) {
		return nil
	}
	return noMemory(b.cfg)
}

// noMemory refuses a request for which no memory is free.
func noMemory(cfg *Config) *refusal {
	return refuse(reasonOverloaded, "requests that are being processed use all memory for requests (--max-memory-bytes is %d); nothing of this one was taken; send it again later", cfg.MaxMemoryBytes).after(time.Second)
}

// messageBytes is about how much memory a message takes besides its payload: for
// metadata, key, and the bus's own form of it.
const messageBytes = 1 << 10

// decoders decode frames, one body at a time. Their buffers are used again for the
// next body, so no reading costs an allocation.
type decoders struct {
	limits oona.FrameLimits
	frame  oona.Frame
	avro   avro.FrameDecoder
	json   jsonDecoder
}

// pooled is the maximum size in bytes of what a pool keeps. Buffers grow with use.
// Without the limit each would become as large as the largest body.
const pooled = 1 << 20

// size returns how many bytes the decoders keep.
func (d *decoders) size() int { return d.avro.Size() + d.json.size() }

func newDecoders(cfg Config) *decoders {
	return &decoders{limits: cfg.limits(), avro: avro.FrameDecoder{Limits: cfg.limits()}, json: jsonDecoder{limits: cfg.limits()}}
}

// decodeFunc adds the frames of a body to a batch, or refuses the first bad one.
type decodeFunc func(d *decoders, body []byte, b *batch) *refusal

// avroFrames decodes an object container file, or single objects that follow one
// another. The value of a record is the object that was received, since every reader
// knows every published schema.
func (d *decoders) avroFrames(body []byte, b *batch) *refusal {
	if p := sniff(body, mediaAvro); p != nil {
		return p
	}
	if isContainer(body) {
		return d.containerFrames(body, b)
	}
	for rest := body; len(rest) > 0; {
		i := len(b.messages)
		if i == b.cfg.MaxFrames {
			return tooManyFrames(b.cfg.MaxFrames)
		}
		after, err := d.avro.Decode(rest, &d.frame)
		if err != nil {
			p := refuseFrame(i, err)
			if i > 0 {
				p.detail += fmt.Sprintf(" (the frame begins at byte %d of the body, after %d that are whole)", len(body)-len(rest), i)
			}
			return p
		}
		end := len(rest) - len(after)
		if p := d.take(b, rest[:end:end]); p != nil {
			return p
		}
		rest = after
	}
	return nil
}

// containerFrames decodes an object container file.
func (d *decoders) containerFrames(body []byte, b *batch) *refusal {
	var refused *refusal
	reserve := func(bytes int) error {
		if refused = b.hold(bytes); refused != nil {
			return errRefused
		}
		return nil
	}
	err := d.avro.DecodeContainer(body, int(b.cfg.MaxDecompressedBytes), reserve, &d.frame, func(single []byte) error {
		if len(b.messages) == b.cfg.MaxFrames {
			refused = tooManyFrames(b.cfg.MaxFrames)
		} else {
			refused = d.take(b, single)
		}
		if refused != nil {
			return errRefused
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, avro.ErrInflated):
		return decompressedTooLarge(b.cfg)
	case err != nil:
		return refuseFrame(len(b.messages), err)
	case len(b.messages) == 0:
		return refuse(reasonUndecodable, "the file has no frames; send at least one")
	}
	return nil
}

// take validates the frame that was decoded and adds it to the batch. value is its
// encoding, or nil if it was not received in the encoding of records.
func (d *decoders) take(b *batch, value []byte) *refusal {
	if grown := d.size() - b.decoders; grown > 0 {
		b.decoders += grown
		if refused := b.hold(grown); refused != nil {
			b.decoders -= grown
			return refused
		}
	}
	if err := d.frame.Validate(d.limits); err != nil {
		return refuseFrame(len(b.messages), err)
	}
	return b.add(&d.frame, value)
}

func tooManyFrames(limit int) *refusal {
	return refuse(reasonTooLarge, "the request has more than %d frames; spread them over several requests", limit)
}

// add appends the record of a valid frame. value is as for take.
func (b *batch) add(f *oona.Frame, value []byte) *refusal {
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
	// Each part of a split frame repeats the ids and names, hence three quarters.
	if limit := b.cfg.MaxMessageBytes - recordOverhead; len(value) > limit {
		return refuse(reasonTooLarge,
			"has %d bytes encoded, the bus takes %d; split it by seed ids into frames with different sequence numbers and at most %d seeds each",
			len(value), limit, max(1, len(f.Seeds)*limit/len(value)*3/4)).of(len(b.messages), "")
	}
	if refused := b.hold(messageBytes); refused != nil {
		return refused
	}
	m := bus.NewMessage(value, bus.Target{Key: oona.Key(f.Run, f.Layer)})
	m.Metadata.Set(oona.HeaderPath, b.path)
	if b.trace != "" {
		m.Metadata.Set(traceParent, b.trace)
	}
	b.messages = append(b.messages, m)
	b.readings += len(f.Seeds)
	return nil
}
