package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// TensorStore stores tensors by their content. Its errors wrap the errors of
// package claimcheck. It is implemented by [claimcheck.Store].
type TensorStore interface {
	// Claim, Check and CheckSize do no I/O.
	Claim(content []byte) oona.TensorClaim
	Check(claim oona.TensorClaim) error
	CheckSize(size int64) error
	// Spool reads content to its end. Keep returns when it is stored durably.
	Spool(ctx context.Context, content io.Reader) (*claimcheck.Spooled, error)
	Keep(ctx context.Context, content *claimcheck.Spooled) (claim oona.TensorClaim, fresh bool, err error)
	Confirm(ctx context.Context, claim oona.TensorClaim) error
	// Probe checks whether tensors can be stored. It may write under the name.
	Probe(ctx context.Context, name string) error
}

// concurrentStores is how many tensors of a request are stored concurrently.
const concurrentStores = 8

// keptTensor is a tensor that a frame of a batch refers to by a claim.
type keptTensor struct {
	frame, index int // index of the frame in the batch, and of the tensor in the frame
	claim        oona.TensorClaim
	content      []byte // nil: the client has stored it
}

func (k *keptTensor) field() string { return fmt.Sprintf("tensors[%d].data", k.index) }

// claimTensors replaces the large tensors of a frame by claims, and checks the claims
// that the frame has. It reports whether the frame has changed. A claim depends on the
// content alone, so nothing needs to be stored before all frames are validated.
func (b *batch) claimTensors(f *oona.Frame) (replaced bool, _ *refusal) {
	for i := range f.Tensors {
		t := &f.Tensors[i]
		kept := keptTensor{frame: len(b.messages), index: i}
		switch {
		case t.Claim == nil && (b.cfg.Tensors == nil || len(t.Data) <= b.cfg.InlineTensorBytes):
			continue
		case b.cfg.Tensors == nil:
			return false, refuseFrame(kept.frame, &oona.FieldError{Field: kept.field(), Reason: "is a claim, but this ingest has no tensor store (--tensor-store); send the data itself"})
		case t.Claim == nil:
			if refused := b.holdTensor(len(t.Data)); refused != nil {
				return false, refused
			}
			// The decoder uses its buffer again for the next frame.
			kept.content = bytes.Clone(t.Data)
			kept.claim = b.cfg.Tensors.Claim(t.Data)
			t.Claim, t.Data = &kept.claim, nil
			replaced = true
		default:
			kept.claim = *t.Claim
		}
		if err := b.cfg.Tensors.Check(kept.claim); err != nil {
			return false, claimProblem(&kept, err)
		}
		b.tensors = append(b.tensors, kept)
	}
	return replaced, nil
}

// spooledInMemory is the maximum size of a tensor that the store spools in memory, in a
// buffer of up to twice that. Larger tensors are spooled in a file.
const spooledInMemory = 1 << 20

// holdTensor takes memory for a tensor of a frame, and for the copies of the tensors
// that are being stored concurrently.
func (b *batch) holdTensor(size int) *refusal {
	copies := min(b.copies+2*min(size, spooledInMemory), concurrentStores*2*spooledInMemory)
	if refused := b.hold(size + copies - b.copies); refused != nil {
		return refused
	}
	b.copies = copies
	return nil
}

// claimProblem refuses a claim that the store would not make.
func claimProblem(k *keptTensor, err error) *refusal {
	why := reasonInvalid
	if errors.Is(err, claimcheck.ErrTooLarge) {
		why = reasonTooLarge
	}
	field, reason := k.field(), err.Error()
	if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
		reason = wrong.Reason
		if field += "." + wrong.Field; k.content != nil {
			field = k.field()
		}
	}
	return refuse(why, "%s: %s", field, reason).of(k.frame, field)
}

// storeTensors stores the tensors of the batch, and looks up the claims of clients.
func (in *intake) storeTensors(ctx context.Context, b *batch) *refusal {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.StoreTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrentStores)
	for i := range b.tensors {
		group.Go(func() error {
			if err := in.keep(ctx, &b.tensors[i]); err != nil {
				return &keepError{&b.tensors[i], err}
			}
			return nil
		})
	}
	err := group.Wait()
	if failed, ok := errors.AsType[*keepError](err); ok {
		return in.storeProblem(failed.err, ofFrames).of(failed.tensor.frame, failed.tensor.field())
	}
	return nil
}

// keepError says which tensor an error is about.
type keepError struct {
	tensor *keptTensor
	err    error
}

func (e *keepError) Error() string { return e.err.Error() }
func (e *keepError) Unwrap() error { return e.err }

// keep ensures that the tensor is in the store.
func (in *intake) keep(ctx context.Context, k *keptTensor) error {
	if k.content == nil {
		return in.cfg.Tensors.Confirm(ctx, k.claim)
	}
	spooled, err := in.cfg.Tensors.Spool(ctx, bytes.NewReader(k.content))
	if err != nil {
		return err
	}
	defer spooled.Close()
	claim, fresh, err := in.cfg.Tensors.Keep(ctx, spooled)
	if err == nil && claim != k.claim {
		err = fmt.Errorf("%w: its key is %s in the store, and %s in the record", claimcheck.ErrMismatch, claim.Key, k.claim.Key)
	}
	in.counts.stored(claim.Size, fresh, err)
	return err
}

func (m *frameMetrics) stored(size int64, fresh bool, err error) {
	switch {
	case err != nil:
		m.tensorsTotal.WithLabelValues(tensorFailed).Inc()
	case fresh:
		m.tensorsTotal.WithLabelValues(tensorKept).Inc()
		m.tensorBytesTotal.Add(float64(size))
	default:
		m.tensorsTotal.WithLabelValues(tensorKnown).Inc()
	}
}

// What was not taken of a request because of the store.
const (
	ofFrames = "no frame of this request was taken"
	ofTensor = "the tensor was not taken"
)

// storeProblem refuses a request because of an error of the store.
func (in *intake) storeProblem(err error, lost string) *refusal {
	switch {
	case errors.Is(err, claimcheck.ErrTooLarge):
		reason := "is larger than the store takes"
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
			reason = wrong.Reason
		}
		return refuse(reasonTooLarge, "the tensor's size %s (--max-tensor-bytes)", reason)
	case errors.Is(err, claimcheck.ErrNotFound):
		return refuse(reasonDangling, "the claim's tensor is not in the store; send it first, by PUT /v1/tensors")
	case errors.Is(err, claimcheck.ErrMismatch):
		return refuse(reasonMismatch, "%v; send the tensor again", err)
	case errors.Is(err, context.Canceled):
		return refuse(reasonRead, "the request was cut off before the tensor was stored")
	}
	in.storeFailed()
	switch {
	case errors.Is(err, claimcheck.ErrFull):
		in.warn("the tensor store is full", "err", err)
		return refuse(reasonStoreFull, "the tensor store is full; %s; send it again later", lost).after(time.Minute)
	case needsOperator(err):
		in.warn("the tensor store refuses ingest; tensors are refused until the cause is corrected", "err", err)
		return refuse(reasonRefused, "tensors cannot be stored until the operator acts: see the log of ingest; %s; keep it until then", lost).after(time.Minute)
	}
	in.warn("the tensor store did not accept a tensor", "err", err)
	return refuse(reasonStore, "the tensor store failed or did not answer in time; %s; send it again", lost).after(5 * time.Second)
}
