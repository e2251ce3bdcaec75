package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// belowLimit is the warning where the topic takes less than it was said to.
const belowLimit = "the bus refuses a record or a batch that is within --max-message-bytes; set it to the topic's max.message.bytes"

// publish hands the batch to the bus and waits for it, at most for the publish
// timeout. The request's slot and memory are released when the publisher returns,
// however late: a bus that hangs holds no more memory than they allow.
func (s *Stage) publish(b *batch, release func()) *refusal {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.PublishTimeout)
	result := make(chan error, 1)
	go func() {
		defer cancel()
		err := s.publishFrames(ctx, b.messages)
		s.metrics.publishSeconds.Observe(time.Since(began).Seconds())
		release() // before the answer: a client that sends one request after the other needs one slot
		result <- err
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		select { // it has returned, which ends ctx too
		case err = <-result:
		default:
			err = ctx.Err()
		}
	}
	if err != nil {
		return s.publishFailed(b, err)
	}
	s.metrics.accept(b)
	return nil
}

// publishFrames hands frames to the bus together, or, where that is too large for
// it, one by one. It returns a *tooLargeError where a frame is too large by itself.
func (s *Stage) publishFrames(ctx context.Context, messages []*message.Message) error {
	err := s.publisher.Publish(ctx, s.cfg.Topic, messages...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	s.warn(belowLimit, "limit", s.cfg.MaxMessageBytes, "err", err)
	refused := &tooLargeError{of: len(messages)}
	for i, m := range messages {
		err := s.publisher.Publish(ctx, s.cfg.Topic, m)
		switch {
		case errors.Is(err, bus.ErrTooLarge):
			refused.frames, refused.why = append(refused.frames, i), err
		case err != nil:
			return err
		}
	}
	if len(refused.frames) > 0 {
		return refused
	}
	return nil
}

// tooLargeError says which of some frames the bus will never take. It has the
// others.
type tooLargeError struct {
	frames []int
	of     int
	why    error
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("the bus refused %d of the %d frames as too large, the first of them frame %d, and has the other %d; split its frames by seed ids (%v)",
		len(e.frames), e.of, e.frames[0], e.of-len(e.frames), e.why)
}

func (e *tooLargeError) refusal() *refusal {
	return refuse(reasonTooLarge, "%v", e)
}

func (s *Stage) publishFailed(b *batch, err error) *refusal {
	s.metrics.unconfirm(len(b.messages))
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

// warn logs at most one warning of a text in ten seconds. Texts are constants:
// what differs from one to the next is in args.
func (s *Stage) warn(text string, args ...any) {
	if skipped, ok := s.warnings.allow(text, time.Now()); ok {
		s.logger.Warn(text, append(args, "suppressed", skipped)...)
	}
}
