package records

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
)

// rawSuffix is the end of the name of the raw topic. Its records are bodies that trainers
// have sent. A body may have several frames: as JSON, in an object container file, or one after the
// other.
const rawSuffix = ".telemetry.seed.raw"

// mostInflated limits the memory for a compressed body.
const mostInflated = 256 << 20

// bodies has no other limits, because the limits of the installation may have changed since.
var bodies = intake.Config{Frame: anySize, MaxFrames: math.MaxInt, MaxDecompressedBytes: mostInflated, MaxRecordBytes: math.MaxInt}

// errBody means that ingest would not accept a record of the raw topic.
var errBody = errors.New("not a valid body of frames")

// Each calls take with the records of a message: one record, or one for each frame if it is a body
// of several frames. A record is valid until take returns. The error comes from take, or is one as
// Decode returns.
func (d *Decoder) Each(msg *message.Message, take func(*Record) error) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(at.Topic, rawSuffix) {
		r, err := d.Decode(msg)
		if err != nil {
			return err
		}
		return take(r)
	}
	if d.bodies == nil {
		d.bodies = intake.NewDecoder(anySize)
	}
	batch := bodies.NewBatch()
	if refused := d.bodies.Record(msg, batch, math.MaxInt64); refused != nil {
		d.record = Record{At: at, Message: msg, Body: msg, Parts: 1}
		d.record.Err = fmt.Errorf("offset %d of %s/%d: %w: %s: %s", at.Offset, at.Topic, at.Partition, errBody, refused.Reason, refused.Detail)
		return take(&d.record)
	}
	for i, frame := range batch.Messages {
		frame.Metadata = msg.Metadata
		frame.SetContext(bus.WithPosition(msg.Context(), at))
		r, err := d.Decode(frame)
		if err != nil {
			return err
		}
		r.Body, r.Part, r.Parts = msg, i, len(batch.Messages)
		if err := take(r); err != nil {
			return err
		}
	}
	return nil
}
