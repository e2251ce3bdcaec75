package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
)

// publish publishes the batch and returns when the bus has acknowledged it, or after
// the publish timeout. Messages that are on their way then are waited for: see
// bus.Publisher.
func (s *Stage) publish(b *intake.Batch) *intake.Refusal {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.PublishTimeout)
	defer cancel()
	err := s.publishFrames(ctx, b.Messages)
	s.metrics.publishSeconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return s.publishFailed(b, err)
	}
	s.counts.accept(b)
	return nil
}

func (s *Stage) publishFailed(b *intake.Batch, err error) *intake.Refusal {
	s.counts.unconfirmed.Add(int64(len(b.Messages)))
	if errors.Is(err, context.DeadlineExceeded) {
		s.warn("the bus did not answer in time", "timeout", s.cfg.PublishTimeout, "frames", len(b.Messages), "err", err)
		return intake.Refuse(reasonTimeout,
			"the bus has not acknowledged the frames within %s and may still accept them; send the same request again; repeats are folded once", s.cfg.PublishTimeout).After(5 * time.Second)
	}
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		return tooLarge.refusal().Of(tooLarge.frames[0], "")
	}
	if errors.Is(err, bus.ErrPartitions) {
		s.warn("frames are refused until the topics are corrected", "frames", len(b.Messages), "err", err)
		return intake.Refuse(reasonPartitions,
			"frames are not accepted: %v; keep the frames, and send them again when that is corrected", err).After(time.Minute)
	}
	s.warn("the bus did not accept frames", "frames", len(b.Messages), "err", err)
	return intake.Refuse(reasonPublish,
		"the bus did not acknowledge the frames; send the same request again; repeats are folded once").After(5 * time.Second)
}
