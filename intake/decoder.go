package intake

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Decoder decodes frames, one body at a time. It reuses its buffers for the next body, so a
// reading needs no allocation.
type Decoder struct {
	limits oona.FrameLimits
	frame  oona.Frame
	avro   avro.FrameDecoder
	json   jsonDecoder
}

// NewDecoder returns a Decoder for frames within the limits.
func NewDecoder(limits oona.FrameLimits) *Decoder {
	return &Decoder{limits: limits, avro: avro.FrameDecoder{Limits: limits}, json: jsonDecoder{limits: limits}}
}

// Size returns the size of the buffers in bytes. They grow with use.
func (d *Decoder) Size() int { return d.avro.Size() + d.json.size() }

// IsContainer reports whether a body is an object container file.
func IsContainer(body []byte) bool { return bytes.HasPrefix(body, []byte(avro.ContainerMagic)) }

// Avro decodes an object container file, or single objects that follow one another. The value
// of a record is the object as it was received, because every reader knows every published
// schema.
func (d *Decoder) Avro(body []byte, b *Batch) *Refusal {
	defer b.decoded()
	if IsContainer(body) {
		return d.containerFrames(body, b)
	}
	for rest := body; len(rest) > 0; {
		i := len(b.Messages)
		after, err := d.avro.Decode(rest, &d.frame)
		if err != nil {
			p := refuseFrame(i, err)
			if i > 0 {
				p.Detail += fmt.Sprintf(" (the frame begins at byte %d of the body, after %d complete frames)", len(body)-len(rest), i)
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
func (d *Decoder) containerFrames(body []byte, b *Batch) *Refusal {
	var refused *Refusal
	reserve := func(bytes int) error {
		if refused = b.hold(bytes); refused != nil {
			return errRefused
		}
		return nil
	}
	err := d.avro.DecodeContainer(body, int(b.cfg.MaxDecompressedBytes), reserve, &d.frame, func(single []byte) error {
		if refused = d.take(b, single); refused != nil {
			return errRefused
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, avro.ErrInflated):
		return DecompressedTooLarge(b.cfg.MaxDecompressedBytes, false)
	case err != nil:
		return refuseFrame(len(b.Messages), err)
	case len(b.Messages) == 0:
		return Refuse(ReasonUndecodable, "the file has no frames; send at least one")
	}
	return nil
}

// take validates the decoded frame and adds it to the batch. value is the frame as it was
// received, or nil if that is not the encoding of records.
func (d *Decoder) take(b *Batch, value []byte) *Refusal {
	if grown := d.Size() - b.decoders; grown > 0 {
		b.decoders += grown
		if refused := b.hold(grown); refused != nil {
			b.decoders -= grown
			return refused
		}
	}
	if len(b.Messages) == b.cfg.MaxFrames {
		return Refuse(ReasonTooLarge, "the request has more than %d frames; spread them over several requests", b.cfg.MaxFrames)
	}
	if err := d.frame.Validate(d.limits); err != nil {
		return refuseFrame(len(b.Messages), err)
	}
	if b.Permit != nil {
		if refused := b.Permit(&d.frame); refused != nil {
			return refused.Of(len(b.Messages), refused.Field)
		}
	}
	if refused := b.judge(&d.frame); refused != nil {
		return refused
	}
	return b.add(&d.frame, value)
}

// DecompressedTooLarge refuses a body of frames or of events that has more bytes than the
// limit once it is decompressed.
func DecompressedTooLarge(limit int64, events bool) *Refusal {
	return Refuse(ReasonTooLarge, "the body is larger than %s when it is decompressed (--max-decompressed-bytes); %s", size.Text(limit), SendLess(events))
}

// SendLess says what the sender of a body that is too large can do.
func SendLess(events bool) string {
	if events {
		return "send fewer events in a request"
	}
	return "send fewer frames in a request, or split the frame by seed ids"
}
