package intake

import "github.com/morphogenetic/oona"

// Judge decides which frames the aggregator will certainly put aside instead of folding them.
type Judge interface {
	// Judge returns the reason why a valid frame will be put aside, or "" if it is not certain
	// that it will be.
	Judge(f *oona.Frame) Reason
	// Explain returns the field of the frame that is the cause, and a text that says what the sender can do.
	Explain(f *oona.Frame, why Reason) (field, detail string)
}

// Aside describes the frames of a batch that will be put aside for the same reason.
type Aside struct {
	Reason Reason
	Frames int
	First  int // index of the first of them in the batch. The fields below describe that frame
	Field  string
	Detail string
	Run    oona.RunID
}

// judge is called for the next frame of the batch. If the frame will be put aside, judge adds it to
// b.Aside, or refuses the batch if it is strict.
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
