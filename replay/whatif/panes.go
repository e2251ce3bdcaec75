package whatif

import (
	"cmp"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// identity identifies a frame. A repeat has the same identity.
type identity struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

func identityOf(f *oona.Frame) identity { return identity{f.Producer, f.Epoch, f.Sequence} }

// pane has the frames of an interval of event time with the length of a hop. A hopping window
// is made by merging the panes in it.
type pane struct {
	start  oona.Micros
	layers map[oona.LayerID]*layer
	folded map[identity]foldedFrame
}

// foldedFrame is a frame that was folded: the checksum of its bytes, and the layer that has it.
type foldedFrame struct {
	checksum uint64
	into     *layer
}

// panes has the open panes of a timeline. A pane is open until all windows that it is a part of
// have closed. A frame that is late for some of these windows is still folded into the others.
type panes struct {
	*Engine
	list     []*pane     // in the order of their starts
	closedTo oona.Micros // watermark of the last close, or beginning
}

func (p *panes) count() int { return len(p.list) }

// closesAt returns the watermark that closes the last window of a pane.
func (p *panes) closesAt(start oona.Micros) oona.Micros {
	return start + p.spans.length + p.spans.lateness
}

func (p *panes) last() (oona.Micros, bool) {
	if len(p.list) == 0 {
		return 0, false
	}
	return p.closesAt(p.list[len(p.list)-1].start), true
}

// floorTo returns the greatest multiple of a step that is not above t.
func floorTo(t, step oona.Micros) oona.Micros {
	into := t % step
	if into < 0 {
		into += step
	}
	return t - into
}

func (p *panes) fold(r *windows.Record, watermark oona.Micros) windows.Outcome {
	f := r.Frame
	start := floorTo(f.ObservedAt, p.spans.hop)
	if p.closesAt(start) <= watermark {
		return windows.Outcome{Verdict: windows.Late, Reason: windows.ReasonLate}
	}
	at, found := slices.BinarySearchFunc(p.list, start, func(held *pane, start oona.Micros) int { return cmp.Compare(held.start, start) })
	var of *pane
	if found {
		of = p.list[at]
		if first, repeated := of.folded[identityOf(f)]; repeated {
			return repeatOf(first, r)
		}
	}
	if reason := p.exceeds(of, f); reason != windows.ReasonNone {
		return windows.Outcome{Verdict: windows.Overflowed, Reason: reason}
	}
	if of == nil {
		of = &pane{start, make(map[oona.LayerID]*layer), make(map[identity]foldedFrame)}
		p.list = slices.Insert(p.list, at, of)
	}
	l := of.layers[f.Layer]
	if l == nil {
		l = newLayer()
		of.layers[f.Layer] = l
		p.layers++
	}
	l.add(&p.folder, r)
	of.folded[identityOf(f)] = foldedFrame{r.Checksum, l}
	return windows.Outcome{}
}

// repeatOf returns the outcome for a repeat of a frame: a duplicate, or a conflict if it has other
// bytes.
func repeatOf(first foldedFrame, r *windows.Record) windows.Outcome {
	if first.checksum != r.Checksum {
		return windows.Outcome{Verdict: windows.Quarantined, Reason: windows.ReasonConflict}
	}
	first.into.duplicates++
	return windows.Outcome{Verdict: windows.Duplicate, Reason: windows.ReasonDuplicate}
}

// exceeds returns the reason if a frame would exceed a limit of its pane, which may be nil.
func (p *panes) exceeds(of *pane, f *oona.Frame) windows.Reason {
	var l *layer
	if of != nil {
		l = of.layers[f.Layer]
		if l == nil && len(of.layers) >= p.settings.Config.MaxLayers {
			return windows.ReasonLayers
		}
	}
	if l == nil && p.full() {
		return windows.ReasonSealed
	}
	return l.exceeds(f, &p.settings.Config)
}

// close emits each window that ends between the last watermark and this one, both minus the allowed
// lateness. It merges the panes of the window.
func (p *panes) close(dst []closed, watermark oona.Micros) []closed {
	ends := make(map[oona.Micros]bool)
	for _, held := range p.list {
		end := held.start + p.spans.hop
		if p.closedTo > end+p.spans.lateness {
			end = floorTo(p.closedTo-p.spans.lateness, p.spans.hop)
		}
		for ; end <= held.start+p.spans.length && end+p.spans.lateness <= watermark; end += p.spans.hop {
			if end+p.spans.lateness > p.closedTo {
				ends[end] = true
			}
		}
	}
	p.closedTo = watermark
	for end := range ends {
		dst = p.merge(dst, end-p.spans.length, end)
	}
	p.list = slices.DeleteFunc(p.list, func(held *pane) bool {
		if p.closesAt(held.start) > watermark {
			return false
		}
		p.layers -= len(held.layers)
		return true
	})
	return dst
}

// merge appends the window of each layer from start to end.
func (p *panes) merge(dst []closed, start, end oona.Micros) []closed {
	merged := make(map[oona.LayerID]*layer)
	for _, held := range p.list {
		if held.start < start || held.start >= end {
			continue
		}
		for id, part := range held.layers {
			whole := merged[id]
			if whole == nil {
				whole = newLayer()
				merged[id] = whole
			}
			whole.merge(&p.folder, part)
		}
	}
	for id, content := range merged {
		dst = append(dst, closed{layer: id, start: start, end: end, content: content})
	}
	return dst
}
