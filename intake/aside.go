package intake

import "github.com/morphogenetic/oona"

// Judge knows which frames the log will put aside instead of folding them.
type Judge interface {
	// Judge returns why a valid frame will be put aside. It returns "" if it will not be, or
	// if that is not certain.
	Judge(f *oona.Frame) Reason
	// Explain returns the field of the frame that is the reason, and what the sender can do.
	Explain(f *oona.Frame, why Reason) (field, detail string)
}

// Aside is how many frames of a batch will be put aside for a reason.
type Aside struct {
	Reason Reason
	Frames int
	First  int // index of the first one in the batch; what follows is of that
	Field  string
	Detail string
	Run    oona.RunID
}

// judge notes it if the log will put the next frame of the batch aside. A strict batch is
// refused then.
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
