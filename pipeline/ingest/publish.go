package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// publish publishes the batch and returns when the bus has acknowledged it, or after
// the publish timeout. Messages that are on their way then are waited for: see
// bus.Publisher.
func (s *Stage) publish(b *batch) *refusal {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.PublishTimeout)
	defer cancel()
	err := s.publishFrames(ctx, b.messages)
	s.metrics.publishSeconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return s.publishFailed(b, err)
	}
	s.counts.accept(b)
	return nil
}

func (s *Stage) publishFailed(b *batch, err error) *refusal {
	s.counts.unconfirmed.Add(int64(len(b.messages)))
	if errors.Is(err, context.DeadlineExceeded) {
		s.warn("the bus did not answer in time", "timeout", s.cfg.PublishTimeout, "frames", len(b.messages), "err", err)
		return refuse(reasonTimeout,
			"the bus has not acknowledged the frames within %s and may still accept them; send the same request again; repeats are folded once", s.cfg.PublishTimeout).after(5 * time.Second)
	}
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		return tooLarge.refusal().of(tooLarge.frames[0], "")
	}
	if errors.Is(err, bus.ErrPartitions) {
		s.warn("frames are refused until the topics are corrected", "frames", len(b.messages), "err", err)
		return refuse(reasonPartitions,
			"frames are not accepted: %v; keep the frames, and send them again when that is corrected", err).after(time.Minute)
	}
	s.warn("the bus did not accept frames", "frames", len(b.messages), "err", err)
	return refuse(reasonPublish,
		"the bus did not acknowledge the frames; send the same request again; repeats are folded once").after(5 * time.Second)
}
