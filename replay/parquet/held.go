package parquet

import (
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
)

// heldFrames has the frames of a layer that are not in a file yet.
type heldFrames struct {
	frames []heldFrame
}

// heldFrame is a copy of a frame, with the columns in the order of names.
type heldFrame struct {
	observed oona.Micros
	step     int64
	sequence int64
	producer int32
	seeds    []oona.SeedID // may be shared with the frame before
	states   []oona.State
	names    []string  // may be shared with the frame before
	columns  []float32 // len(names) columns of len(seeds) values
}

// column returns the values of a metric, or nil if the frame does not have it.
func (f *heldFrame) column(name string) []float32 {
	i := slices.Index(f.names, name)
	if i < 0 {
		return nil
	}
	n := len(f.seeds)
	return f.columns[i*n : (i+1)*n]
}

// add copies a frame. columns is memory for its values.
func (h *heldFrames) add(f *oona.Frame, producer int32, columns []float32) {
	held := heldFrame{observed: f.ObservedAt, step: f.Step, sequence: f.Sequence, producer: producer, states: slices.Clone(f.States)}
	var before heldFrame
	if len(h.frames) > 0 {
		before = h.frames[len(h.frames)-1]
	}
	if held.seeds = before.seeds; !slices.Equal(held.seeds, f.Seeds) {
		held.seeds = slices.Clone(f.Seeds)
	}
	held.names = namesOf(f.Metrics, before.names)
	held.columns = columns[:0]
	for _, c := range f.Metrics {
		held.columns = append(held.columns, c.Values...)
	}
	h.frames = append(h.frames, held)
}

// namesOf returns the names of columns. If they equal the given names, it returns these.
func namesOf(columns []oona.Column, names []string) []string {
	if slices.EqualFunc(columns, names, func(c oona.Column, name string) bool { return c.Name == name }) {
		return names
	}
	names = make([]string, len(columns))
	for i, c := range columns {
		names[i] = strings.Clone(c.Name)
	}
	return names
}

// metrics returns the names of all metrics, sorted.
func (h *heldFrames) metrics() []string {
	var all, before []string
	for i := range h.frames {
		names := h.frames[i].names
		if len(names) > 0 && len(before) == len(names) && &names[0] == &before[0] {
			continue
		}
		all, before = append(all, names...), names
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// lacks reports whether a row has no value of a metric.
func (h *heldFrames) lacks(metric string) bool {
	for i := range h.frames {
		f := &h.frames[i]
		column := f.column(metric)
		if column == nil && len(f.seeds) > 0 {
			return true
		}
		for _, v := range column {
			if v != v {
				return true
			}
		}
	}
	return false
}
