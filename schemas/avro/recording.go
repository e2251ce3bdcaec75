package avro

import (
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
	e := new(oona.SeedEvent)
	event := wireEvent{
		Run: w.Run, Layer: w.Layer, Timeline: w.Timeline, Producer: w.Producer, ProducerEpoch: int64(w.wireFrame.Epoch),
		Sequence: w.Sequence, Step: w.Step, wireTransition: w.wireTransition,
	}
	return Entry{Event: e}, event.event(e)
}
