// Package records decodes the records of Oona's topics for replays, and selects the records
// that the user asks for.
package records

import (
	"errors"
	"fmt"
	"math"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Record is a decoded record of a topic, or one of the frames of a record. One of Frame, Rollup,
// Event and RunEnd is set. None is set for Oona's own records, and for records that cannot be decoded.
type Record struct {
	At      bus.Position
	Message *message.Message

	// Body is the message as it is on the topic. Message is the same, except for a body of the
	// raw topic: then Message has only the frame, in single-object encoding.
	Body *message.Message
	// Part is the index of the frame in Body, which has Parts frames.
	Part, Parts int

	Frame  *oona.Frame
	Rollup *oona.Rollup
	Event  *oona.SeedEvent
	RunEnd *oona.RunEnd

	// Own is the kind of one of Oona's own records, such as oona.TickRecord.
	Own string
	// Err says why a record cannot be decoded.
	Err error

	// Readings is the number of readings of the record before Narrow: the number of seeds of a
	// frame, and 1 for any other record.
	Readings int64
	// Selected says that an output must write the record. Other records are only counted, and
	// their Frame and Rollup may lack the parts that are not selected.
	Selected bool
	// Narrowed says that Frame or Rollup lacks a part that Message has.
	Narrowed bool
	// Whole says that all of Body is selected. For a body with several frames, it is true only
	// if the Selection selects everything.
	Whole bool
}

// Left returns how many readings are selected.
func (r *Record) Left() int64 {
	switch {
	case !r.Selected:
		return 0
	case r.Frame != nil:
		return int64(len(r.Frame.Seeds))
	}
	return r.Readings
}

// Last reports whether no other frame of the same message follows.
func (r *Record) Last() bool { return r.Part == r.Parts-1 }

// Counts returns what a record adds to the counts of an output with a row for each reading.
func (r *Record) Counts() manifest.Counts {
	c := manifest.Counts{Readings: r.Readings, Rows: r.Left()}
	if r.Part == 0 {
		c.Records = 1
	}
	c.Skipped = c.Readings - c.Rows
	switch {
	case r.Own != "":
		c.Own = 1
	case r.Err != nil:
		c.Unread = 1
	}
	return c
}

// Decoder decodes the records of a topic. It is not for concurrent use.
type Decoder struct {
	frames avro.FrameDecoder
	record Record
	frame  oona.Frame
	rollup oona.Rollup
	event  oona.SeedEvent
	runEnd oona.RunEnd
	bodies *intake.Decoder // nil before the first body
}

// NewDecoder returns a decoder. It recognises the kind of a record by the fingerprint of its schema.
func NewDecoder() *Decoder { return new(Decoder) }

// errTrailing means that a record has bytes after its value.
var errTrailing = errors.New("bytes follow the value")

// anySize has no limits, because the limits of the installation may have changed since.
var anySize = oona.FrameLimits{Seeds: math.MaxInt, Metrics: math.MaxInt, Tensors: math.MaxInt}

// Decode decodes a record. The record is valid until the next call. If the value cannot be
// decoded, Decode returns no error and sets Record.Err.
func (d *Decoder) Decode(msg *message.Message) (*Record, error) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return nil, err
	}
	d.record = Record{At: at, Message: msg, Body: msg, Parts: 1, Own: msg.Metadata.Get(oona.HeaderRecord)}
	r := &d.record
	if r.Own != "" {
		return r, nil
	}
	if err := d.decode(msg.Payload, r); err != nil {
		r.Frame, r.Rollup, r.Event, r.RunEnd, r.Readings = nil, nil, nil, nil, 0
		r.Err = fmt.Errorf("offset %d of %s/%d: %w", at.Offset, at.Topic, at.Partition, err)
	}
	return r, nil
}

func (d *Decoder) decode(value []byte, r *Record) (err error) {
	var rest []byte
	switch avro.RecordName(value) {
	case avro.HealthName, avro.PerformanceName:
		rest, err = avro.DecodeRollup(value, &d.rollup)
		r.Rollup, r.Readings = &d.rollup, 1
	case avro.EventName:
		rest, err = avro.DecodeEvent(value, &d.event)
		r.Event, r.Readings = &d.event, 1
	case avro.RunEndName:
		rest, err = avro.DecodeRunEnd(value, &d.runEnd)
		r.RunEnd, r.Readings = &d.runEnd, 1
	default:
		if rest, err = d.frames.Decode(value, &d.frame); err == nil {
			err = d.frame.Validate(anySize) // others may write to the topic; workers refuse such a frame, too
		}
		r.Frame, r.Readings = &d.frame, int64(len(d.frame.Seeds))
	}
	if err == nil && len(rest) > 0 {
		err = errTrailing
	}
	return err
}
