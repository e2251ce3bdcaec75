package ingest

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// batch is the records of one request.
type batch struct {
	cfg   *Config
	trace string // the request's trace context; may be empty
	bytes int    // of the body

	messages []*message.Message
	readings int
}

// decoders are what a request decodes with. Their buffers serve the next
// request, so that nothing is allocated for a reading.
type decoders struct {
	limits oona.FrameLimits
	frame  oona.Frame
	avro   avro.FrameDecoder
	json   jsonDecoder
}

func newDecoders(cfg Config) *decoders {
	return &decoders{limits: cfg.limits(), avro: avro.FrameDecoder{Limits: cfg.limits()}}
}

// decodeFunc adds the frames of a body to a batch, or says what is wrong with
// the first bad one.
type decodeFunc func(d *decoders, body []byte, b *batch) *problem

// avroFrames takes single objects, one after the other. A record's value is the
// object as it was received: every reader knows every published schema.
func (d *decoders) avroFrames(body []byte, b *batch) *problem {
	if p := notSingleObjects(body); p != nil {
		return p
	}
	for rest := body; len(rest) > 0; {
		i := len(b.messages)
		if i == b.cfg.MaxFrames {
			return tooManyFrames(b.cfg.MaxFrames)
		}
		after, err := d.avro.Decode(rest, &d.frame)
		if err != nil {
			p := frameProblem(i, err)
			if i > 0 {
				p.Detail += fmt.Sprintf(" (the frame begins at byte %d of the body, after %d that are whole)", len(body)-len(rest), i)
			}
			return p
		}
		if err := d.frame.Validate(d.limits); err != nil {
			return frameProblem(i, err)
		}
		end := len(rest) - len(after)
		if p := b.add(&d.frame, rest[:end:end]); p != nil {
			return p
		}
		rest = after
	}
	return nil
}

// notSingleObjects recognises what else is sent as application/avro.
func notSingleObjects(body []byte) *problem {
	switch {
	case len(body) == 0:
		return newProblem(http.StatusBadRequest, reasonUndecodable, "the body is empty; send at least one frame")
	case bytes.HasPrefix(body, []byte("Obj\x01")):
		return newProblem(http.StatusUnsupportedMediaType, reasonMediaType, "the body is an Avro object container file, which is not taken yet; send its frames in single-object encoding, one after the other")
	case body[0] == 0:
		return newProblem(http.StatusUnsupportedMediaType, reasonMediaType, "the body begins with 00, as a schema registry frames it; send frames in single-object encoding, which begins with c3 01")
	case body[0] == '{' || body[0] == '[':
		return newProblem(http.StatusUnsupportedMediaType, reasonMediaType, "the body looks like JSON; send it with Content-Type: %s", mediaJSON)
	}
	return nil
}

func tooManyFrames(limit int) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, reasonTooLarge, "the request has more than %d frames; spread them over several requests", limit)
}

// add appends a valid frame's record, value being its encoding.
func (b *batch) add(f *oona.Frame, value []byte) *problem {
	// Ids and names are in each part of a frame that is split: hence three quarters.
	if limit := b.cfg.MaxMessageBytes - recordOverhead; len(value) > limit {
		return newProblem(http.StatusRequestEntityTooLarge, reasonTooLarge,
			"has %d bytes encoded, the bus takes %d; split it by seed ids into frames of their own sequence numbers, at most %d seeds each",
			len(value), limit, max(1, len(f.Seeds)*limit/len(value)*3/4)).ofFrame(len(b.messages))
	}
	m := message.NewMessage("", value)
	m.Metadata.Set(oona.MetaKey, string(oona.Key(f.Run, f.Layer)))
	m.Metadata.Set(oona.HeaderPath, b.cfg.Instance)
	if b.trace != "" {
		m.Metadata.Set(traceParent, b.trace)
	}
	b.messages = append(b.messages, m)
	b.readings += len(f.Seeds)
	return nil
}
