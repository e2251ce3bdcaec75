package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/records"
)

// Output is where an Extraction writes records.
type Output interface {
	// Open begins or resumes a range of a partition of a topic. from is the first offset
	// whose record the Writer needs. It is above r.From if an earlier replay has already written a
	// part of the range.
	Open(ctx context.Context, topic string, r bus.Range) (w Writer, from int64, err error)
}

// Writer writes the records of a range of a partition. Its calls come in the order of the
// offsets, from one goroutine. Several records may have the same offset: the frames of a
// record of the raw topic.
type Writer interface {
	// Write writes a record, which is valid until Write returns. If a record is not Selected,
	// Write only adds its Counts.
	Write(r *records.Record) error
	// Close ends the range at an offset: all records below it have been passed to Write.
	// When it returns, they are in the output.
	Close(end int64) error
	// Abort ends the range after an error. Finished files stay.
	Abort() error
}

// Extraction reads ranges of topics, and passes the selected records to an Output.
type Extraction struct {
	Log       Log
	Selection records.Selection
	Output    Output
	// Decoded is called with each record before it is narrowed. May be nil.
	Decoded func(r *records.Record)
	// Read is called with each record that was read and narrowed. May be nil.
	Read func(r *records.Record)
}

// Extract reads a range of a partition of a topic.
func (e *Extraction) Extract(ctx context.Context, topic string, r bus.Range) error {
	w, from, err := e.Output.Open(ctx, topic, r)
	if err != nil {
		return fmt.Errorf("replay %s/%d: %w", topic, r.Partition, err)
	}
	decoder := records.NewDecoder()
	err = readWhole(ctx, e.Log, topic, bus.Range{Partition: r.Partition, From: from, End: r.End}, func(msg *message.Message) error {
		return decoder.Each(msg, func(record *records.Record) error {
			if e.Decoded != nil {
				e.Decoded(record)
			}
			e.Selection.Narrow(record)
			if e.Read != nil {
				e.Read(record)
			}
			return w.Write(record)
		})
	})
	if err != nil {
		return errors.Join(fmt.Errorf("replay %s/%d: %w", topic, r.Partition, err), w.Abort())
	}
	return w.Close(r.End)
}
