package parquet

import (
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// frameEncoder writes held frames to files. It has large buffers, so it is used again for files with
// the same columns. The library's writer is not used again, because what it writes would depend on the
// files before.
type frameEncoder struct {
	metrics  []string
	optional []bool // for each metric, whether a row has no value
	schema   *parquet.Schema
	file     *parquet.GenericWriter[any]
	buffer   *parquet.Buffer
	columns  []parquet.ColumnBuffer

	longs  []int64
	ints   []int32
	values []parquet.Value
}

// encoder returns an encoder for files with the columns of the held frames. A metric that was
// not measured everywhere has an optional column. Other columns are not optional, because these are
// faster to write and to read.
func (o *Output) encoder(h *heldFrames) *frameEncoder {
	metrics := h.metrics()
	optional := make([]bool, len(metrics))
	for i, name := range metrics {
		optional[i] = h.lacks(name)
	}
	if w := o.frames; w != nil && slices.Equal(w.metrics, metrics) && slices.Equal(w.optional, optional) {
		return w
	}
	w := &frameEncoder{metrics: metrics, optional: optional}
	w.schema = w.makeSchema()
	w.buffer = parquet.NewBuffer(w.schema)
	w.columns = w.buffer.ColumnBuffers()
	o.frames = w
	return w
}

func (h *heldFrames) writeTo(out io.Writer, o *Output, about []property) error {
	w := o.encoder(h)
	w.file = parquet.NewGenericWriter[any](out, append(o.writerOptions(), w.schema)...)
	for _, p := range about {
		w.file.SetKeyValueMetadata(p.key, p.value)
	}
	if err := w.write(h.frames, evenly(h.rows(), o.Options.RowGroupRows)); err != nil {
		o.frames = nil // its buffers may have a part of the file
		return err
	}
	return nil
}

func (h *heldFrames) rows() (n int) {
	for i := range h.frames {
		n += len(h.frames[i].seeds)
	}
	return n
}

// evenly returns the number of rows of each row group of a file. It is near asked, and chosen so that
// the last row group is not much smaller than the others.
func evenly(rows, asked int) int {
	groups := max(1, (rows+asked/2)/asked)
	return (rows + groups - 1) / groups
}

func (w *frameEncoder) makeSchema() *parquet.Schema {
	nodes := ordered{Group: baseNodes(), order: append([]string(nil), baseColumns...)}
	for i, name := range w.metrics {
		node := parquet.Encoded(parquet.Leaf(parquet.FloatType), &parquet.ByteStreamSplit)
		if w.optional[i] {
			node = parquet.Optional(node)
		}
		nodes.Group[columnName(name)] = node
		nodes.order = append(nodes.order, columnName(name))
	}
	return parquet.NewSchema(framesTable, nodes)
}

func (w *frameEncoder) write(frames []heldFrame, groupRows int) error {
	rows := 0
	for i := range frames {
		f := &frames[i]
		for from := 0; from < len(f.seeds); {
			to := min(len(f.seeds), from+groupRows-rows)
			if err := w.append(f, from, to); err != nil {
				return err
			}
			rows, from = rows+to-from, to
			if rows == groupRows {
				if err := w.flush(); err != nil {
					return err
				}
				rows = 0
			}
		}
	}
	if rows > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.file.Close()
}

func (w *frameEncoder) flush() error {
	_, err := w.file.WriteRowGroup(w.buffer)
	w.buffer.Reset()
	return err
}

// append adds the rows from to to of a frame to the columns.
func (w *frameEncoder) append(f *heldFrame, from, to int) error {
	n := to - from
	for i, v := range []int64{int64(f.observed), f.step, f.sequence} {
		w.longs = repeat(w.longs, v, n)
		if _, err := w.columns[i].(parquet.Int64Writer).WriteInt64s(w.longs); err != nil {
			return err
		}
	}
	w.ints = repeat(w.ints, f.producer, n)
	if err := w.writeInts(3); err != nil {
		return err
	}
	for i, seed := range f.seeds[from:to] {
		w.ints[i] = int32(seed)
	}
	if err := w.writeInts(4); err != nil {
		return err
	}
	for i, state := range f.states[from:to] {
		w.ints[i] = int32(state)
	}
	if err := w.writeInts(5); err != nil {
		return err
	}
	for i, name := range w.metrics {
		column := f.column(name)
		if column != nil {
			column = column[from:to]
		}
		if err := w.writeMetric(len(baseColumns)+i, column, n); err != nil {
			return err
		}
	}
	return nil
}

func (w *frameEncoder) writeInts(column int) error {
	_, err := w.columns[column].(parquet.Int32Writer).WriteInt32s(w.ints)
	return err
}

// writeMetric writes n values of a metric. Those that were not measured are NULL.
func (w *frameEncoder) writeMetric(column int, values []float32, n int) error {
	if !w.optional[column-len(baseColumns)] {
		_, err := w.columns[column].(parquet.FloatWriter).WriteFloats(values)
		return err
	}
	w.values = slices.Grow(w.values[:0], n)[:n]
	var null parquet.Value
	if values == nil {
		w.values = repeat(w.values, null, n)
	}
	for i, v := range values {
		if v != v {
			w.values[i] = null
		} else {
			w.values[i] = parquet.FloatValue(v)
			w.values[i].SetDefinitionLevel(1)
		}
	}
	_, err := w.columns[column].WriteValues(w.values)
	return err
}

func repeat[T any](dst []T, v T, n int) []T {
	dst = dst[:0]
	for range n {
		dst = append(dst, v)
	}
	return dst
}
