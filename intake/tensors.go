package intake

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// ConcurrentStores is the maximum number of tensors of a request that are stored at the same
// time.
const ConcurrentStores = 8

// Tensor is a tensor that a frame of a batch refers to by a claim.
type Tensor struct {
	Frame, Index int // the index of the frame in the batch, and of the tensor in the frame
	Claim        oona.TensorClaim
	Content      []byte // nil: the client has stored it
}

// Field returns the field of the frame.
func (k *Tensor) Field() string { return fmt.Sprintf("tensors[%d].data", k.Index) }

// claimTensors replaces the large tensors of a frame by claims, and checks the claims that the
// frame has already. It reports whether it has changed the frame. A claim depends only on the
// content, so nothing needs to be stored before all frames are validated.
func (b *Batch) claimTensors(f *oona.Frame) (replaced bool, _ *Refusal) {
	for i := range f.Tensors {
		t := &f.Tensors[i]
		kept := Tensor{Frame: len(b.Messages), Index: i}
		switch {
		case t.Claim == nil && (b.cfg.Claims == nil || len(t.Data) <= b.cfg.InlineTensorBytes):
			continue
		case b.cfg.Claims == nil:
			return false, refuseFrame(kept.Frame, &oona.FieldError{Field: kept.Field(), Reason: "is a claim, but this ingest has no tensor store (--tensor-store); send the data itself"})
		case t.Claim == nil:
			if refused := b.holdTensor(len(t.Data)); refused != nil {
				return false, refused
			}
			// The decoder uses its buffer again for the next frame.
			kept.Content = bytes.Clone(t.Data)
			kept.Claim = b.cfg.Claims.Claim(t.Data)
			t.Claim, t.Data = &kept.Claim, nil
			replaced = true
		default:
			kept.Claim = *t.Claim
		}
		if err := b.cfg.Claims.Check(kept.Claim); err != nil {
			return false, claimProblem(&kept, err)
		}
		b.Tensors = append(b.Tensors, kept)
	}
	return replaced, nil
}

// SpooledInMemory is the maximum size of a tensor that the store spools in memory, in a
// buffer of up to twice that. Larger tensors are spooled in a file.
const SpooledInMemory = 1 << 20

// holdTensor reserves memory for a tensor of a frame, and for the copies that the store makes of
// tensors while it stores them.
func (b *Batch) holdTensor(size int) *Refusal {
	copies := min(b.copies+2*min(size, SpooledInMemory), ConcurrentStores*2*SpooledInMemory)
	if refused := b.hold(size + copies - b.copies); refused != nil {
		return refused
	}
	b.copies = copies
	return nil
}

// claimProblem refuses a claim that the store would not make.
func claimProblem(k *Tensor, err error) *Refusal {
	why := ReasonInvalid
	if errors.Is(err, claimcheck.ErrTooLarge) {
		why = ReasonTooLarge
	}
	field, reason := k.Field(), err.Error()
	if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
		reason = wrong.Reason
		if field += "." + wrong.Field; k.Content != nil {
			field = k.Field()
		}
	}
	return Refuse(why, "%s: %s", field, reason).Of(k.Frame, field)
}
