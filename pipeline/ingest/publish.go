package ingest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/spool"
)

// publish publishes the batch. It returns when the bus has acknowledged it, or when it is in the
// spool. Without a spool, it waits for the bus for the publish timeout, and then for messages that
// are already on their way: see bus.Publisher. held is the batch's memory, which ends when it is no
// longer used. judged is when the batch was judged: after a long time, b.Aside may no longer hold.
func (s *Stage) publish(b *intake.Batch, judged time.Time, trace *requestTrace, held *lease) (spooled bool, refused *intake.Refusal) {
	var unconfirmed int
	var err error
	if b.Topics == nil {
		spooled, err = s.send(s.cfg.Topic, b.Messages, trace, held.end)
		unconfirmed = notTaken(b.Messages, err)
	} else {
		spooled, unconfirmed, err = s.sendEvents(b, trace, held.end)
	}
	if err != nil {
		s.counts.unconfirmed.Add(int64(unconfirmed))
		return false, s.publishFailed(b, err)
	}
	lapse(b, judged, spooled)
	s.accepted(b)
	return spooled, nil
}

func (s *Stage) send(topic string, messages []*message.Message, trace *requestTrace, release func()) (spooled bool, err error) {
	began := time.Now()
	if s.forward != nil {
		spooled, err = s.forward.Send(topic, messages, release)
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.PublishTimeout)
		defer cancel()
		defer release()
		err = s.publishTo(ctx, topic, messages)
	}
	s.metrics.publishSeconds.Observe(time.Since(began).Seconds())
	trace.published(topic, began, err)
	return spooled, err
}

// sendEvents sends the events of a batch to all their topics at the same time, so that the request
// waits for the bus only once. If a topic cannot be used, or refuses some of its events as too large,
// the error is an *eventsError, unless sending to another topic failed for a reason that is not its
// own. unconfirmed is the number of events that are neither on the bus nor in the spool, as far as is
// known. release is called when no message is used any more.
func (s *Stage) sendEvents(b *intake.Batch, trace *requestTrace, release func()) (spooled bool, unconfirmed int, err error) {
	var used atomic.Int64
	used.Store(1)
	released := func() {
		if used.Add(-1) == 0 {
			release()
		}
	}
	defer released()
	type part struct {
		topic    string
		messages []*message.Message
		spooled  bool
		err      error
	}
	var parts []*part
	for _, topic := range s.cfg.Events.AllEvents() {
		p := &part{topic: topic}
		for i, m := range b.Messages {
			if b.Topics[i] == topic {
				p.messages = append(p.messages, m)
			}
		}
		if len(p.messages) > 0 {
			parts = append(parts, p)
		}
	}
	var sending sync.WaitGroup
	for _, p := range parts {
		used.Add(1)
		sending.Go(func() { p.spooled, p.err = s.send(p.topic, p.messages, trace, released) })
	}
	sending.Wait()
	failed := new(eventsError)
	for _, p := range parts {
		unconfirmed += notTaken(p.messages, p.err)
		if p.err != nil && !failed.add(p.err) && err == nil {
			err = p.err
		}
		spooled = spooled || p.spooled && p.err == nil
	}
	if err == nil && !failed.empty() {
		err = failed
	}
	return spooled && err == nil, unconfirmed, err
}

// notTaken returns how many of the messages to a topic were not confirmed.
func notTaken(messages []*message.Message, err error) int {
	if never := neverTaken(err); err == nil || len(never) > 0 {
		return len(never)
	}
	return len(messages)
}

// neverTaken returns the indexes of the messages that the bus will never take. It returns some
// only if the bus has the others.
func neverTaken(err error) []int {
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		return tooLarge.which
	}
	return nil
}

// permanent reports whether an error of the bus is not an outage, so that the client must be
// told.
func permanent(err error) bool {
	return ofEventTopic(err) || len(neverTaken(err)) > 0 || errors.Is(err, bus.ErrPartitions)
}

func (s *Stage) publishFailed(b *intake.Batch, err error) *intake.Refusal {
	what, repeats := "frames", "repeats are folded once"
	if b.Topics != nil {
		what, repeats = "events", "readers recognise repeats"
	}
	if failed, ok := errors.AsType[*eventsError](err); ok {
		return failed.refusal(b)
	}
	if errors.Is(err, spool.ErrFull) {
		s.warn("the spool is full, and the bus does not answer or does not have the earlier "+what+" of the run yet; "+what+" are refused", what, len(b.Messages), traceOfLog(b.Trace), "err", err)
		return intake.Refuse(reasonSpoolFull,
			"the spool is full, and the bus is unavailable or does not have the earlier %s of the run yet; keep the %s, and send the same request again later; %s", what, what, repeats).After(30 * time.Second)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.warn("the bus did not answer in time", "timeout", s.cfg.PublishTimeout, what, len(b.Messages), traceOfLog(b.Trace), "err", err)
		return intake.Refuse(reasonTimeout,
			"the bus has not acknowledged the %s within %s and may still accept them; send the same request again; %s", what, s.cfg.PublishTimeout, repeats).After(5 * time.Second)
	}
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		return intake.Refuse(intake.ReasonTooLarge, "%v", tooLarge).Of(tooLarge.which[0], "")
	}
	if errors.Is(err, bus.ErrPartitions) {
		s.warn(what+" are refused until the topics are corrected", what, len(b.Messages), traceOfLog(b.Trace), "err", err)
		return intake.Refuse(reasonPartitions,
			"%s are not accepted: %v; keep them, and send them again when the operator has corrected this", what, err).After(time.Minute)
	}
	if b.Topics == nil && errors.Is(err, bus.ErrNoTopic) {
		s.warn("the topic of frames does not exist, so frames are not accepted; run oona topics apply", "topic", s.cfg.Topic, what, len(b.Messages), traceOfLog(b.Trace), "err", err)
		return intake.Refuse(reasonPublish,
			"the topic %s does not exist; the operator must create it with: oona topics apply; keep the frames, and send the same request again", s.cfg.Topic).After(5 * time.Second)
	}
	s.warn("the bus did not accept "+what, what, len(b.Messages), traceOfLog(b.Trace), "err", err)
	return intake.Refuse(reasonPublish,
		"the bus did not acknowledge the %s; send the same request again; %s", what, repeats).After(5 * time.Second)
}
