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
	"github.com/morphogenetic/oona/intake"
)

// TensorStore stores tensors by their content. Its errors wrap the errors of package claimcheck.
// [claimcheck.Store] implements it.
type TensorStore interface {
	// Claim, Check and CheckSize do no I/O.
	Claim(content []byte) oona.TensorClaim
	Check(claim oona.TensorClaim) error
	CheckSize(size int64) error
	// Spool reads content to its end. Keep returns when it is stored durably.
	Spool(ctx context.Context, content io.Reader) (*claimcheck.Spooled, error)
	Keep(ctx context.Context, content *claimcheck.Spooled) (claim oona.TensorClaim, fresh bool, err error)
	Confirm(ctx context.Context, claim oona.TensorClaim) error
	// Probe checks whether tensors can be stored. It may write an object with the name.
	Probe(ctx context.Context, name string) error
}

// storeTensors stores the tensors of the batch, and looks up the claims of clients.
func (s *sink) storeTensors(ctx context.Context, b *intake.Batch) *intake.Refusal {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(intake.ConcurrentStores)
	for i := range b.Tensors {
		group.Go(func() error {
			if err := s.keep(ctx, &b.Tensors[i]); err != nil {
				return &keepError{&b.Tensors[i], err}
			}
			return nil
		})
	}
	err := group.Wait()
	if failed, ok := errors.AsType[*keepError](err); ok {
		return s.storeProblem(failed.err, ofFrames).Of(failed.tensor.Frame, failed.tensor.Field())
	}
	return nil
}

// keepError is an error with the tensor that it is about.
type keepError struct {
	tensor *intake.Tensor
	err    error
}

func (e *keepError) Error() string { return e.err.Error() }
func (e *keepError) Unwrap() error { return e.err }

// keep ensures that the tensor is in the store.
func (s *sink) keep(ctx context.Context, k *intake.Tensor) error {
	if k.Content == nil {
		return s.cfg.Tensors.Confirm(ctx, k.Claim)
	}
	spooled, err := s.cfg.Tensors.Spool(ctx, bytes.NewReader(k.Content))
	if err != nil {
		return err
	}
	defer spooled.Close()
	claim, fresh, err := s.cfg.Tensors.Keep(ctx, spooled)
	if err == nil && claim != k.Claim {
		err = fmt.Errorf("%w: its key is %s in the store, and %s in the record", claimcheck.ErrMismatch, claim.Key, k.Claim.Key)
	}
	s.counts.stored(claim.Size, fresh, err)
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

// These texts are part of an answer after an error of the store. They say what was not accepted.
const (
	ofFrames = "no frame of this request was accepted"
	ofTensor = "the tensor was not stored"
)

// storeProblem refuses a request because of an error of the store.
func (s *sink) storeProblem(err error, lost string) *intake.Refusal {
	switch {
	case errors.Is(err, claimcheck.ErrTooLarge):
		reason := "is larger than the store takes"
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
			reason = wrong.Reason
		}
		return intake.Refuse(intake.ReasonTooLarge, "the size of the tensor %s (--max-tensor-bytes)", reason)
	case errors.Is(err, claimcheck.ErrNotFound):
		return intake.Refuse(reasonDangling, "the tensor of the claim is not in the tensor store; send the tensor first, with PUT /v1/tensors")
	case errors.Is(err, claimcheck.ErrMismatch):
		return intake.Refuse(reasonMismatch, "%v; send the tensor again", err)
	case errors.Is(err, context.Canceled):
		return intake.Refuse(reasonRead, "the connection was closed before the tensor was stored")
	}
	s.storeFailed(err)
	switch {
	case errors.Is(err, claimcheck.ErrFull):
		s.warn("the tensor store is full", "err", err)
		return intake.Refuse(reasonStoreFull, "the tensor store is full; %s; send it again later", lost).After(time.Minute)
	case needsOperator(err):
		s.warn("the tensor store refuses the requests of ingest; tensors are refused until the cause is corrected", "err", err)
		return intake.Refuse(reasonRefused, "the tensor store refuses the requests of ingest until the operator corrects the cause (the log of ingest has the error); %s; keep it until then", lost).After(time.Minute)
	}
	s.warn("the tensor store did not accept a tensor", "err", err)
	return intake.Refuse(reasonStore, "the tensor store failed or did not answer in time; %s; send it again", lost).After(5 * time.Second)
}
