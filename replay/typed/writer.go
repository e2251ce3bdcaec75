package typed

import (
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

// writer writes the records of a range of a partition.
type writer struct {
	*Output
	topic  string
	number int32
	folder string

	next   int64           // offset from which on records are not in finished files
	file   *file           // the open file, or nil
	counts manifest.Counts // counts of the records from next on
	single []byte          // buffer for a record that is encoded again
}

// Write writes a record.
func (w *writer) Write(r *records.Record) error {
	if !r.Selected || r.Frame == nil && r.Rollup == nil && r.Event == nil && r.RunEnd == nil {
		w.counts.Add(r.Counts())
		return nil
	}
	single := w.encode(r)
	name := avro.RecordName(single)
	if w.file != nil && w.file.schema.Name != name { // a topic with records of several kinds
		if err := w.finish(r.At.Offset); err != nil {
			return err
		}
	}
	w.counts.Add(r.Counts())
	if w.file == nil {
		var err error
		if w.file, err = w.create(name); err != nil {
			return err
		}
	}
	if err := w.file.append(single, r.Left()); err != nil {
		return err
	}
	if w.file.bytes < w.Options.FileBytes || !r.Last() {
		return nil
	}
	return w.finish(r.At.Offset + 1)
}

// encode returns the selected parts of a record, in single-object encoding of the latest
// version.
func (w *writer) encode(r *records.Record) []byte {
	if !r.Narrowed && avro.IsLatest(r.Message.Payload) {
		return r.Message.Payload
	}
	w.single = w.single[:0]
	switch {
	case r.Frame != nil:
		w.single = avro.AppendFrame(w.single, r.Frame)
	case r.Rollup != nil:
		w.single = avro.AppendLatestRollup(w.single, r.Rollup)
	case r.Event != nil:
		w.single = avro.AppendEvent(w.single, r.Event)
	case r.RunEnd != nil:
		w.single = avro.AppendRunEnd(w.single, r.RunEnd)
	}
	return w.single
}

// finish ends the open file, if any, and records in the manifest that the files have all records below
// an offset.
func (w *writer) finish(end int64) error {
	done := w.manifest.Partition(w.topic, w.number)
	if w.file != nil {
		f, err := w.file.finish(w.next, end)
		w.file = nil
		if err != nil {
			return err
		}
		done.Files = append(done.Files, f)
	}
	if end <= done.End {
		return nil
	}
	done.End, w.next = end, end
	if done.Counts == nil {
		done.Counts = new(manifest.Counts)
	}
	done.Counts.Add(w.counts)
	w.counts = manifest.Counts{}
	return w.manifest.Write(w.Dir)
}

// Close ends the range.
func (w *writer) Close(end int64) error { return w.finish(end) }

// Abort removes the unfinished file. The next replay reads its records again.
func (w *writer) Abort() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.abort()
}
