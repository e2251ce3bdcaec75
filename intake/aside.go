package intake

import "github.com/morphogenetic/oona"

// Judge knows which frames the aggregator will put aside instead of folding them.
type Judge interface {
	// Judge returns the reason why a valid frame will certainly be put aside, or "" if that
	// is not certain.
	Judge(f *oona.Frame) Reason
	// Explain returns the field of the frame that is the cause, and what the sender can do.
	Explain(f *oona.Frame, why Reason) (field, detail string)
}

// Aside says how many frames of a batch will be put aside for the same reason.
type Aside struct {
	Reason Reason
	Frames int
	First  int // index of the first of them in the batch; the fields below are about that one
	Field  string
	Detail string
	Run    oona.RunID
}

// judge records in b.Aside that the next frame of the batch will be put aside, if it will. A
// strict batch is refused instead.
func (b *Batch) judge(f *oona.Frame) *Refusal {
	if b.Judge == nil {
		return nil
	}
	why := b.Judge.Judge(f)
	if why == "" {
		return nil
	}
	for i := range b.Aside {
		if a := &b.Aside[i]; a.Reason == why {
			a.Frames++
			return nil
		}
	}
	field, detail := b.Judge.Explain(f, why)
	if b.Strict {
		return Refuse(why, "%s", detail).Of(len(b.Messages), field)
	}
	b.Aside = append(b.Aside, Aside{why, 1, len(b.Messages), field, detail, f.Run})
	return nil
}
