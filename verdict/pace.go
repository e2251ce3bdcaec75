package verdict

import "github.com/morphogenetic/oona"

// pace follows how a layer's windows and steps advance.
type pace struct {
	end     oona.Micros // the latest end of a window
	length  oona.Micros // length of that window
	strides [2]oona.Micros
	moved   oona.Micros // the latest end of a window in which the steps rose, or may have risen
	risen   oona.Micros // the latest end of a window in which the steps certainly rose
	stepped bool        // whether any rollup says how the steps rise
}

// stalledAfter is the number of windows by which a stalled layer is behind.
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

// stalled returns a reason if the layer is three windows behind other layers of the run. now is the
// latest end of a window in the run, and risen the latest end of a window in which the steps rose. A
// layer that has a window only now and then may be further behind.
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
