package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// decoder turns the records of one topic into Records.
type decoder struct {
	topics  oona.Topics
	address oona.Address
	frames  avro.FrameDecoder
	frame   oona.Frame
}

// limits are above the limits of ingest, so that every record on the bus is shown.
var limits = oona.FrameLimits{Seeds: 1 << 20, Metrics: 1 << 12, Tensors: 1 << 12}

func newDecoder(topics oona.Topics, address oona.Address) *decoder {
	return &decoder{topics: topics, address: address, frames: avro.FrameDecoder{Limits: limits}}
}

// decode never fails: if a record cannot be decoded, the Record says so. For a record of the raw
// topic, it returns one Record for each frame.
func (d *decoder) decode(msg *message.Message) ([]*Record, error) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return nil, err
	}
	about := Record{
		Partition: at.Partition, Offset: at.Offset, At: at.Appended.Time(),
		Path: msg.Metadata.Get(oona.HeaderPath), Side: sideOf(msg.Metadata),
	}
	if run, layer, err := oona.ParseKey(at.Key); err == nil {
		about.run, about.layer = run, layer
	}
	var records []*Record
	switch d.topics.Schema(d.address.Topic) {
	case oona.DeadSchema:
		about.Kind, about.Undecoded = kindUndecoded, undecodedValue(msg.Payload, nil)
		records = []*Record{&about}
	case oona.RollupSchema:
		records = []*Record{d.rollup(about, msg.Payload)}
	case oona.RawSchema:
		records = d.raw(about, msg.Payload)
	case oona.SettingSchema, oona.RedriveSchema:
		records = []*Record{settingRecord(about, string(at.Key), msg.Payload)}
	default:
		records = d.metrics(about, msg.Metadata.Get(oona.HeaderRecord), msg.Payload)
	}
	for _, r := range records {
		r.Address = d.topics.Address(oona.Address{Topic: d.address.Topic, Layer: r.layer, Seed: d.address.Seed})
	}
	return records, nil
}

func sideOf(m message.Metadata) *side {
	if m.Get(oona.HeaderErrorException) == "" {
		return nil
	}
	return &side{
		m.Get(oona.HeaderErrorException), m.Get(oona.HeaderErrorMessage), m.Get(oona.HeaderErrorTopic),
		m.Get(oona.HeaderErrorPartition), m.Get(oona.HeaderErrorOffset), m.Get(oona.HeaderErrorIncarnation), m.Get(oona.HeaderErrorStage),
	}
}

func (r Record) withError(value []byte, err error) *Record {
	r.Kind, r.Undecoded = kindUndecoded, undecodedValue(value, err)
	return &r
}

// metrics decodes a record of the topic seed-metrics, of one of its side topics, or of a topic that
// Oona does not know. The record may be a frame, an event, the end of
// a run, a rollup, or one of Oona's own records.
func (d *decoder) metrics(about Record, own string, value []byte) []*Record {
	switch own {
	case "":
		switch avro.RecordName(value) {
		case avro.EventName:
			return []*Record{eventRecord(about, value)}
		case avro.RunEndName:
			return []*Record{runEndRecord(about, value)}
		case avro.HealthName, avro.PerformanceName:
			return []*Record{d.rollup(about, value)}
		}
		return d.single(about, value)
	case oona.TickRecord:
		t, err := avro.DecodeTick(value)
		if err != nil {
			return []*Record{about.withError(value, err)}
		}
		about.Kind, about.Tick = kindTick, &tick{t.Worker, t.WrittenAt.Time()}
	case oona.ConfigurationRecord:
		c, err := avro.DecodeConfiguration(value)
		if err != nil {
			return []*Record{about.withError(value, err)}
		}
		about.Kind, about.Configuration = kindConfiguration, configurationOf(&c)
	case oona.IncarnationRecord:
		s, err := avro.DecodeIncarnation(value)
		if err != nil {
			return []*Record{about.withError(value, err)}
		}
		about.Kind, about.Incarnation = kindIncarnation, incarnationOf(&s)
	default:
		return []*Record{about.withError(value, fmt.Errorf("one of Oona's own records, of a kind that this version does not know: %s", own))}
	}
	return []*Record{&about}
}

// settingRecord shows a record of the settings topic: its value is one of Oona's
// own records, or text.
func settingRecord(about Record, key string, value []byte) *Record {
	about.Kind, about.Setting = kindSetting, &setting{Key: key, Deleted: len(value) == 0}
	if c, err := avro.DecodeConfiguration(value); err == nil {
		about.Configuration = configurationOf(&c)
	} else if s, err := avro.DecodeIncarnation(value); err == nil {
		about.Incarnation = incarnationOf(&s)
	} else if utf8.Valid(value) {
		about.Setting.Text = string(value)
	} else {
		about.Undecoded = undecodedValue(value, nil)
	}
	return &about
}

func (d *decoder) rollup(about Record, value []byte) *Record {
	var r oona.Rollup
	err := avro.Alone(avro.DecodeRollup(value, &r))
	if err != nil {
		return about.withError(value, err)
	}
	about.Kind, about.Rollup, about.rollup = kindRollup, rollupOf(&r), &r
	about.run, about.layer = r.Run, r.Layer
	return &about
}

func eventRecord(about Record, value []byte) *Record {
	var e oona.SeedEvent
	err := avro.Alone(avro.DecodeEvent(value, &e))
	if err != nil {
		return about.withError(value, err)
	}
	about.Kind, about.Event = kindEvent, EventOf(&e)
	about.run, about.layer = e.Run, e.Layer
	return &about
}

// single decodes frames in single-object encoding, one after the other.
func (d *decoder) single(about Record, value []byte) (records []*Record) {
	for rest := value; ; {
		after, err := d.frames.Decode(rest, &d.frame)
		if err != nil {
			return append(records, about.withError(rest, err))
		}
		records = d.add(records, about, rest[:len(rest)-len(after)])
		if rest = after; len(rest) == 0 {
			return records
		}
	}
}

// add appends the frame that was decoded from value, if the frame has the selected seed. If the
// frame is not valid, add appends only the error. This can happen because nothing has validated the
// frames of the raw topic yet.
func (d *decoder) add(records []*Record, about Record, value []byte) []*Record {
	about.run, about.layer = d.frame.Run, d.frame.Layer
	if err := d.frame.Validate(limits); err != nil {
		return append(records, about.withError(value, err))
	}
	about.Kind, about.Frame = kindFrame, frameOf(&d.frame, d.address.Seed)
	if about.Frame == nil {
		return records
	}
	return append(records, &about)
}

// maxInflated is the maximum size of the decompressed blocks of a container in the raw topic.
const maxInflated = 64 << 20

// raw decodes a record of the raw topic, which nothing has validated yet. JSON is shown as it is.
func (d *decoder) raw(about Record, value []byte) (records []*Record) {
	if bytes.HasPrefix(value, []byte(avro.ContainerMagic)) {
		err := d.frames.DecodeContainer(value, maxInflated, nil, &d.frame, func(single []byte) error {
			records = d.add(records, about, single)
			return nil
		})
		if err != nil {
			records = append(records, about.withError(value, err))
		}
		return records
	}
	text := bytes.TrimLeft(value, " \t\r\n")
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return d.single(about, value)
	}
	var frames []json.RawMessage
	if text[0] == '{' {
		frames = []json.RawMessage{value}
	} else if err := json.Unmarshal(value, &frames); err != nil {
		return []*Record{about.withError(value, err)}
	}
	for _, f := range frames {
		records = append(records, rawJSON(about, f))
	}
	return records
}

var errNoJSON = errors.New("not JSON")

func rawJSON(about Record, value []byte) *Record {
	if !json.Valid(value) {
		return about.withError(value, errNoJSON)
	}
	var ids struct {
		Run   oona.RunID   `json:"run_id"`
		Layer oona.LayerID `json:"layer_id"`
	}
	_ = json.Unmarshal(value, &ids) // a record without identifiers is shown, too
	about.Kind, about.JSON = kindJSON, value
	about.run, about.layer = ids.Run, ids.Layer
	return &about
}
