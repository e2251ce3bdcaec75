package parquet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// writer writes the records of a range of a partition.
type writer struct {
	*Output
	topic  string
	table  string
	number int32 // number of the partition

	parts  map[partKey]*part // parts that are not in files yet
	held   int               // number of values in these parts
	rows   int               // number of rows since finish
	counts manifest.Counts   // counts of the records since finish
	files  []manifest.File   // files since finish
}

// Write adds the rows of a record to a part, and ends the files that are large enough.
func (w *writer) Write(r *records.Record) error {
	w.counts.Add(r.Counts())
	if !r.Selected {
		return nil
	}
	before := w.rows
	var grown *part
	switch {
	case r.Frame != nil:
		grown = w.addFrame(r)
	case r.Rollup != nil:
		grown = w.addRollup(r)
	case r.Event != nil:
		grown = w.addEvent(r)
	case r.RunEnd != nil:
		grown = w.addRunEnd(r)
	}
	if w.rows == before || !r.Last() { // a message is never in two files, because files are named by offsets
		return nil
	}
	if w.rows >= w.Options.FinishRows {
		return w.finish(r.At.Offset + 1)
	}
	if grown.rows >= w.Options.FileRows {
		return w.end(grown)
	}
	for w.held > w.Options.HeldValues {
		if err := w.end(w.largest()); err != nil {
			return err
		}
	}
	return nil
}

// rowOverhead is the memory of a frame besides its values, or of a row of another table. It is counted
// in values of four bytes.
const rowOverhead = 80

// addFrame adds the rows of a frame to its part.
func (w *writer) addFrame(r *records.Record) *part {
	f := r.Frame
	p := w.part(r, partKey{w.table, f.Run, f.Layer})
	if p.content == nil {
		p.content = new(heldFrames)
	}
	p.content.(*heldFrames).add(f, w.producers.number(f), w.reuse(len(f.Seeds)*len(f.Metrics)))
	w.grow(p, r, len(f.Seeds), rowOverhead+len(f.Seeds)*(2+len(f.Metrics)))
	return p
}

// reuse returns memory for values: memory that is no longer used, or new memory.
func (o *Output) reuse(values int) []float32 {
	if last := len(o.spare) - 1; last >= 0 {
		columns := o.spare[last]
		o.spare = o.spare[:last]
		if cap(columns) >= values && cap(columns) <= 2*values {
			return columns
		}
	}
	return make([]float32, 0, values)
}

// part returns the part of a table and layer. A new part has no content.
func (w *writer) part(r *records.Record, key partKey) *part {
	p := w.parts[key]
	if p == nil {
		p = &part{partKey: key, fingerprint: fingerprint(r.Message.Payload), first: r.At.Offset}
		w.parts[key] = p
	}
	return p
}

// grow counts rows and values that were added to a part.
func (w *writer) grow(p *part, r *records.Record, rows, values int) {
	p.last = r.At.Offset
	p.records++
	p.rows, w.rows = p.rows+rows, w.rows+rows
	p.values, w.held = p.values+values, w.held+values
}

// fingerprint returns the fingerprint of the schema of a payload in single-object encoding.
func fingerprint(payload []byte) uint64 {
	const marker = 2
	if len(payload) < marker+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(payload[marker:])
}

// largest returns the part with the most values. If several have the same number, it returns the first.
func (w *writer) largest() *part {
	var most *part
	for _, p := range w.parts {
		if most == nil || cmp.Or(cmp.Compare(most.values, p.values), order(p, most)) < 0 {
			most = p
		}
	}
	return most
}

// order compares parts by their first offsets.
func order(p, q *part) int {
	return cmp.Or(cmp.Compare(p.first, q.first), cmp.Compare(p.table, q.table), cmp.Compare(p.run, q.run), cmp.Compare(p.layer, q.layer))
}

// end writes the file of a part.
func (w *writer) end(p *part) error {
	delete(w.parts, p.partKey)
	w.held -= p.values
	if p.rows == 0 {
		return nil
	}
	file, err := w.write(p, w.topic, w.number)
	if err != nil {
		return err
	}
	w.files = append(w.files, file)
	if held, ok := p.content.(*heldFrames); ok {
		for i := range held.frames {
			w.spare = append(w.spare, held.frames[i].columns)
		}
	}
	return nil
}

// finish ends all files, and records in the manifest that the files have all records below an offset.
func (w *writer) finish(end int64) error {
	for _, p := range slices.SortedFunc(maps.Values(w.parts), order) {
		if err := w.end(p); err != nil {
			return err
		}
	}
	if err := w.writeProducers(); err != nil {
		return err
	}
	if err := w.syncFolders(); err != nil {
		return err
	}
	done := w.partition(w.topic, w.number)
	done.Files, done.End = append(done.Files, w.files...), max(done.End, end)
	if done.Counts == nil {
		done.Counts = new(manifest.Counts)
	}
	done.Counts.Add(w.counts)
	if err := w.manifest.Write(w.Dir); err != nil {
		return err
	}
	w.rows, w.counts, w.files = 0, manifest.Counts{}, nil
	return nil
}

// Close ends the range.
func (w *writer) Close(end int64) error {
	if err := w.finish(end); err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

// Abort removes the files that the manifest on the disk does not name. The next replay reads their
// records again.
func (w *writer) Abort() error {
	clear(w.parts)
	if len(w.files) == 0 {
		return nil
	}
	w.files = nil
	held, err := manifest.Read(w.Dir)
	if err != nil {
		return err
	}
	done := new(manifest.Partition)
	if t := held.Topic(w.topic); t != nil && int(w.number) < len(t.Partitions) {
		done = &t.Partitions[w.number]
	}
	return w.sweep(tablesOf(w.table), w.number, done)
}

// tablesOf returns all tables of a topic.
func tablesOf(table string) []string { return []string{table, table + windowsSuffix} }
