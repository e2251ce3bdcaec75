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

// TensorStore keeps tensors by their content, as [claimcheck.Store] does, whose
// errors its own wrap.
type TensorStore interface {
	// Claim, Check and CheckSize ask nobody.
	Claim(content []byte) oona.TensorClaim
	Check(claim oona.TensorClaim) error
	CheckSize(size int64) error
	// Spool reads content to its end, and Keep returns once it is durable.
	Spool(ctx context.Context, content io.Reader) (*claimcheck.Spooled, error)
	Keep(ctx context.Context, content *claimcheck.Spooled) (claim oona.TensorClaim, fresh bool, err error)
	Confirm(ctx context.Context, claim oona.TensorClaim) error
	// Probe finds out whether tensors can be kept. It may write under the name.
	Probe(ctx context.Context, name string) error
}

// storesAtOnce is how many tensors of one request are on their way at a time.
const storesAtOnce = 8

// keptTensor is a tensor that a frame of a batch refers to by a claim.
type keptTensor struct {
	frame, index int // of the batch, and of the frame
	claim        oona.TensorClaim
	content      []byte // nil: the client has made the claim
}

func (k *keptTensor) field() string { return fmt.Sprintf("tensors[%d].data", k.index) }

// claimTensors puts claims in place of the frame's large tensors, and checks
// those that are there. It reports whether the frame has changed. A claim is made of
// the content alone, so that nothing need be stored before all frames are validated.
func (b *batch) claimTensors(f *oona.Frame) (replaced bool, _ *refusal) {
	for i := range f.Tensors {
		t := &f.Tensors[i]
		kept := keptTensor{frame: len(b.messages), index: i}
		switch {
		case t.Claim == nil && (b.cfg.Tensors == nil || len(t.Data) <= b.cfg.InlineTensorBytes):
			continue
		case b.cfg.Tensors == nil:
			return false, refuseFrame(kept.frame, &oona.FieldError{Field: kept.field(), Reason: "is a claim, and this ingest has no tensor store (--tensor-store); send the data itself"})
		case t.Claim == nil:
			if refused := b.holdTensor(len(t.Data)); refused != nil {
				return false, refused
			}
			// The decoder's buffer is the next frame's too.
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

// spooledInMemory is what the store keeps of a tensor in memory before it goes into
// a file, in a buffer of up to twice that.
const spooledInMemory = 1 << 20

// holdTensor uses memory for a tensor of a frame, and for what of it is on its way
// to the store: of so many at a time as are stored at a time.
func (b *batch) holdTensor(size int) *refusal {
	copies := min(b.copies+2*min(size, spooledInMemory), storesAtOnce*2*spooledInMemory)
	if refused := b.hold(size + copies - b.copies); refused != nil {
		return refused
	}
	b.copies = copies
	return nil
}

// claimProblem is about a claim that the store would not make.
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

// storeTensors is keepTensors for a request that has its place.
func (in *intake) storeTensors(ctx context.Context, b *batch) *refusal {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.StoreTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(storesAtOnce)
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

// keepError says of which tensor err is.
type keepError struct {
	tensor *keptTensor
	err    error
}

func (e *keepError) Error() string { return e.err.Error() }
func (e *keepError) Unwrap() error { return e.err }

// keep makes sure that the tensor is in the store.
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
		err = fmt.Errorf("%w: the store made claim %s of it, ingest %s", claimcheck.ErrMismatch, claim.Key, k.claim.Key)
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

// What a request is about that needs the store: what was not taken of it.
const (
	ofFrames = "no frame of this request was taken"
	ofTensor = "the tensor was not taken"
)

// storeProblem is what the store's error means to a client.
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
		in.warn("there is no room for tensors", "err", err)
		return refuse(reasonStoreFull, "there is no room for tensors; %s, send it again when there is", lost).after(time.Minute)
	case needsOperator(err):
		in.warn("tensors are refused until somebody acts", "err", err)
		return refuse(reasonRefused, "tensors cannot be kept and the operator must act, as ingest's log says; %s, keep it until that is done", lost).after(time.Minute)
	}
	in.warn("the tensor store did not take a tensor", "err", err)
	return refuse(reasonStore, "the tensor store did not answer as it should, or not in time; %s, send it again", lost).after(5 * time.Second)
}
