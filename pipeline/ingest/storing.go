package ingest

import (
	"context"
	"time"
)

// keepTensors checks the batch's tensors in, and asks for those that clients
// have claims of, so that no record refers to what is not there. It waits for
// the store at most for the store timeout.
func (s *Stage) keepTensors(ctx context.Context, b *batch) *refusal {
	if len(b.tensors) == 0 {
		return nil
	}
	if !s.beginStoring() {
		return s.storingOverloaded()
	}
	defer s.endStoring(time.Now())
	// A client that is gone is noticed when it is answered: that it is slow in
	// going must not look like a store that fails.
	return s.storeTensors(context.WithoutCancel(ctx), b)
}

// beginStoring takes a place among the requests that wait for the store. There
// are fewer of them than requests: while the store is down, others flow.
func (s *Stage) beginStoring() bool {
	select {
	case s.storing <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Stage) endStoring(began time.Time) {
	s.metrics.storeSeconds.Observe(time.Since(began).Seconds())
	<-s.storing
}

func (s *Stage) storingOverloaded() *refusal {
	return refuse(reasonOverloaded,
		"%d requests wait for the tensor store, which is the most; nothing of this one was taken, send it again later", cap(s.storing)).after(time.Second)
}
