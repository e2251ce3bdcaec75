package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// publish hands the batch to the bus and waits for it, at most for the publish
// timeout and what the publisher needs to learn of messages that are on their way.
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
			"the bus has not acknowledged the frames within %s and may still take them; send the same request again, repeats are folded once", s.cfg.PublishTimeout).after(5 * time.Second)
	}
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		return tooLarge.refusal().of(tooLarge.frames[0], "")
	}
	if errors.Is(err, bus.ErrPartitions) {
		s.warn("frames are refused until the topics are mended", "frames", len(b.messages), "err", err)
		return refuse(reasonPartitions,
			"frames cannot be taken: %v; keep the frames, and send them again once that is done", err).after(time.Minute)
	}
	s.warn("the bus did not take frames", "frames", len(b.messages), "err", err)
	return refuse(reasonPublish,
		"the bus did not acknowledge the frames; send the same request again, repeats are folded once").after(5 * time.Second)
}
