package avro

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
)

// Entry is one entry of a recording: exactly one of its fields is set.
type Entry struct {
	Frame *oona.Frame
	Event *oona.SeedEvent
}

// RecordingReader reads a recording: an Avro object container file of
// SeedMetrics, of SeedEvent, or of a union of both, in any version that can be read as the
// latest one.
//
// It uses twmb/avro and not goavro, because twmb/avro resolves the file's schema to the
// latest versions, decodes columns into typed slices instead of one interface value per
// sample, and limits the size of blocks before it decompresses them.
type RecordingReader struct {
	file  *ocf.Reader
	count int // number of entries that were read
	ended bool
}

// NewRecordingReader reads the file's header from r.
func NewRecordingReader(r io.Reader) (*RecordingReader, error) {
	file, err := ocf.NewReader(r, ocf.WithReaderSchemaFunc(recordingSchema))
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return &RecordingReader{file: file}, nil
}

// recordingSchema returns the schema that a file is read as: the latest versions of its
// records.
func recordingSchema(file *ocf.Reader) (*avro.Schema, error) {
	root := file.Schema().Root()
	if root.Type != "union" {
		return latestOf(root)
	}
	union := avro.SchemaNode{Type: "union"}
	for i := range root.Branches {
		latest, err := latestOf(&root.Branches[i])
		if err != nil {
			return nil, err
		}
		union.Branches = append(union.Branches, *latest.Root())
	}
	return union.Schema()
}

func latestOf(node *avro.SchemaNode) (*avro.Schema, error) {
	switch name := fullName(node); name {
	case seedMetrics, seedEvent:
		return published.latest[name].parsed, nil
	default:
		return nil, fmt.Errorf("the file holds %s; a recording holds %s or %s, or a union of both", name, seedMetrics, seedEvent)
	}
}

// unset marks a time field that the decoder has not set.
const unset = oona.Micros(math.MinInt64)

// wireEntry has the fields of both records, so that either can be decoded into it. The
// decoder sets one of the two time fields, which shows which record it was.
type wireEntry struct {
	wireFrame      `avro:",inline"`
	wireTransition `avro:",inline"`
}

// wireTransition has the fields of the latest SeedEvent that a frame does not have.
type wireTransition struct {
	Seed     oona.SeedID        `avro:"seed_id"`
	At       oona.Micros        `avro:"at"`
	From     int32              `avro:"from_state"`
	To       int32              `avro:"to_state"`
	Reason   string             `avro:"reason"`
	Evidence map[string]float64 `avro:"evidence"`

	Command         string           `avro:"command_id"`
	Actor           string           `avro:"actor"`
	Node            string           `avro:"node"`
	Session         int64            `avro:"session"`
	Epoch           int64            `avro:"epoch"`
	JournalIndex    int64            `avro:"journal_index"`
	Blueprint       string           `avro:"blueprint_id"`
	Mark            oona.EventMark   `avro:"mark"`
	TriggerPosition int64            `avro:"trigger_position"`
	TriggerIndex    int32            `avro:"trigger_index"`
	Incarnation     oona.Incarnation `avro:"incarnation"`
}

// Next returns the next entry, which the caller may keep. At the end it returns io.EOF.
func (r *RecordingReader) Next() (Entry, error) {
	if r.ended {
		return Entry{}, io.EOF
	}
	var w wireEntry
	w.At, w.ObservedAt = unset, unset
	err := r.file.Decode(&w)
	if err == io.EOF { //nolint:errorlint // a wrapped io.EOF means that the file was cut off
		if err := r.file.Close(); err != nil {
			return Entry{}, fmt.Errorf("recording: %w", err)
		}
		r.ended = true
		return Entry{}, io.EOF
	}
	if _, ok := errors.AsType[*avro.SemanticError](err); ok { // otherwise the file cannot be read
		err = foreign("entry", err)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("recording, entry %d: %w", r.count, err)
	}
	entry, err := w.entry()
	if err != nil {
		return Entry{}, fmt.Errorf("recording, entry %d: %w", r.count, err)
	}
	r.count++
	return entry, nil
}

func (w *wireEntry) entry() (Entry, error) {
	if w.At == unset {
		f := new(oona.Frame)
		return Entry{Frame: f}, w.frame(f)
	}
	e, err := w.event()
	return Entry{Event: e}, err
}

func (w *wireEntry) event() (*oona.SeedEvent, error) {
	from, err := stateOf("from_state", w.From)
	if err != nil {
		return nil, err
	}
	to, err := stateOf("to_state", w.To)
	if err != nil {
		return nil, err
	}
	return &oona.SeedEvent{
		Run: w.Run, Layer: w.Layer, Seed: w.Seed, Sequence: w.Sequence,
		At: w.At, Step: w.Step, From: from, To: to,
		Reason: w.Reason, Evidence: w.Evidence,
		Command: w.Command, Actor: w.Actor, Node: w.Node, Session: w.Session, Epoch: w.wireTransition.Epoch, JournalIndex: w.JournalIndex,
		Blueprint: w.Blueprint, Mark: w.Mark,
		TriggerPosition: w.TriggerPosition, TriggerIndex: w.TriggerIndex, Incarnation: w.Incarnation,
		Timeline: w.Timeline, Producer: w.Producer, ProducerEpoch: int64(w.wireFrame.Epoch),
	}, nil
}

func stateOf(field string, ordinal int32) (oona.State, error) {
	if ordinal < 0 || ordinal >= int32(oona.StateCount) {
		return 0, &DecodeError{field, -1, fmt.Errorf("%w: ordinal %d; states are 0 to %d", ErrMalformed, ordinal, oona.StateCount-1)}
	}
	return oona.State(ordinal), nil
}
