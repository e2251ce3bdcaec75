package ingest

import (
	"context"
	"time"

	"github.com/morphogenetic/oona/intake"
)

// keepTensors stores the tensors of the batch, and looks up the claims of the client, so that no
// record refers to a tensor that is not in the store. It waits at most for the store timeout.
// There are fewer slots for this than for requests, so other requests are served while the store
// is down.
func (s *Stage) keepTensors(ctx context.Context, by *client, b *intake.Batch) *intake.Refusal {
	if len(b.Tensors) == 0 {
		return nil
	}
	switch by.try(forStore) {
	case allTaken:
		return s.storingOverloaded()
	case shareTaken:
		return s.shareTaken()
	}
	defer s.endStoring(by, time.Now())
	// A client that disconnects must not look like a store that fails. It is noticed
	// when the answer is written.
	return s.storeTensors(context.WithoutCancel(ctx), b)
}

func (s *Stage) endStoring(by *client, began time.Time) {
	s.metrics.storeSeconds.Observe(time.Since(began).Seconds())
	by.exit(forStore)
}

func (s *Stage) storingOverloaded() *intake.Refusal {
	return intake.Refuse(intake.ReasonOverloaded,
		"%d requests are waiting for the tensor store, which is the maximum (--max-tensor-requests); this request was refused as a whole; send it again later", cap(s.storing)).After(time.Second)
}
