package verdict

import "github.com/morphogenetic/oona"

// pace is how a layer's windows and steps advance.
type pace struct {
	end     oona.Micros // the greatest end of a window
	length  oona.Micros // of that window
	strides [2]oona.Micros
	moved   oona.Micros // the greatest end of a window in which steps rose, or may have
	risen   oona.Micros // the same, where they certainly rose
	stepped bool        // a rollup said how steps rise
}

// stalledAfter is how many windows a layer must be behind.
const stalledAfter = 3

func (p *pace) observe(r *oona.Rollup) {
	if r.End > p.end {
		if p.end != 0 {
			p.strides = [2]oona.Micros{p.strides[1], r.End - p.end}
		}
		p.end, p.length = r.End, r.End-r.Start
	}
	if r.Group != oona.Performance {
		return
	}
	known := r.Reducer >= 2 && r.Rates.StepTime > 0
	if !known || r.Rates.Steps > 0 {
		p.moved = max(p.moved, r.End)
	}
	if known {
		p.stepped = true
		if r.Rates.Steps > 0 {
			p.risen = max(p.risen, r.End)
		}
	}
}

// stalled returns a reason if the layer is three windows behind others: behind now, the
// greatest end of a window, or behind risen, the greatest end of a window in which steps
// rose. A layer that has a window only now and then may be behind for longer.
func (p *pace) stalled(now, risen oona.Micros) (Reason, bool) {
	if p.end == 0 {
		return Reason{}, false
	}
	stride := max(p.length, min(p.strides[0], p.strides[1]))
	r := Reason{Kind: Stalled, Level: Warning}
	switch {
	case now-p.end >= stalledAfter*stride:
		r.Since, r.Part = p.end, behind(now-p.end, p.length)
	case p.stepped && risen-p.moved >= stalledAfter*stride:
		r.Metric, r.Since, r.Part = "steps", p.moved, behind(risen-p.moved, p.length)
	default:
		return Reason{}, false
	}
	return r, true
}

func behind(by, length oona.Micros) int64 { return int64(by / max(length, 1)) }
