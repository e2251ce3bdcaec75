package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// sessionHandler handles one session of a member after the other, in the place
// of Watermill's handler: that one leaves a partition while its last message is
// still with a handler, and commits what is acked.
type sessionHandler struct {
	member *Member
	logger *slog.Logger

	mu    sync.Mutex
	taken map[topicPartition]taken // of this session, until it is read
}

// taken is an assignment that the owner has taken.
type taken struct {
	from     int64
	consumer bus.Consumer
	topicID  sarama.Uuid
}

// Setup asks the owner where each partition is to be read from, as sarama opens
// them at their commits.
func (h *sessionHandler) Setup(session sarama.ConsumerGroupSession) error {
	for topic, partitions := range session.Claims() {
		assignments, answers, err := h.member.offer(session.Context(), topic, partitions...)
		if err != nil {
			return err
		}
		for i, a := range assignments {
			from, err := answers[i].from, answers[i].err
			if err == nil {
				h.keep(a, answers[i].taken)
			} else {
				h.refused(a, err)
				from = min(max(a.Committed.Offset, a.LogStart), a.LogEnd) // it is not read, but sarama opens it
			}
			// Only this session's consumer is told: nothing is committed.
			session.MarkOffset(topic, a.Partition, from, "")
			session.ResetOffset(topic, a.Partition, from, "")
		}
	}
	h.member.membership.begin(session)
	return session.Context().Err()
}

func (h *sessionHandler) refused(a bus.Assignment, err error) {
	h.logger.Error("a partition is not read: its owner has not taken it; it is asked again", "topic", a.Topic, "partition", a.Partition, "err", err)
}

func (h *sessionHandler) keep(a bus.Assignment, t taken) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken == nil {
		h.taken = make(map[topicPartition]taken)
	}
	h.taken[topicPartition{a.Topic, a.Partition}] = t
}

// ConsumeClaim returns when the assignment is over. It marks nothing as consumed
// in the session, so nothing is committed but what the consumer says.
func (h *sessionHandler) ConsumeClaim(session sarama.ConsumerGroupSession, from sarama.ConsumerGroupClaim) error {
	h.mu.Lock()
	at := topicPartition{from.Topic(), from.Partition()}
	t, found := h.taken[at]
	delete(h.taken, at)
	h.mu.Unlock()
	if !found {
		var err error
		if t, err = h.takeAgain(session, from); err != nil {
			return err
		}
	}
	if t.consumer == nil {
		return nil
	}
	defer t.consumer.Revoke()
	h.member.membership.opened()
	a := &assigned{ConsumerGroupClaim: from, consumer: t.consumer, topicID: t.topicID}
	var beside sync.WaitGroup
	open, end := context.WithCancel(context.WithoutCancel(session.Context()))
	defer end()
	reading, leave := context.WithCancel(session.Context())
	defer leave()
	beside.Go(func() { h.commitWhile(open, session, a, leave) })
	beside.Go(func() { h.followEnd(open, a) })
	if !a.handOut(reading, h.member.out, handlerGrace) {
		h.logger.Error("a handler holds a message of a partition that is lost", "topic", from.Topic(), "partition", from.Partition(), "waited", handlerGrace)
	}
	end()
	beside.Wait()
	_ = h.commit(session, a) // the consumer was told
	return nil
}

const (
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// errMoved ends a session in which a partition would have to be read from another
// offset than sarama has opened it at.
var errMoved = errors.New("the partition must be read from another offset than when the session began")

// takeAgain asks the owner again until it takes the partition, for as long as
// this member has it: to give it up would bring it straight back, with a rebalance of
// the whole group. It returns no consumer if the session ended first.
func (h *sessionHandler) takeAgain(session sarama.ConsumerGroupSession, from sarama.ConsumerGroupClaim) (taken, error) {
	ctx := session.Context()
	for wait := retryMin; bus.Pause(ctx, wait); wait = min(2*wait, retryMax) {
		assignments, answers, err := h.member.offer(ctx, from.Topic(), from.Partition())
		if err != nil {
			h.logger.Error("a partition is not read: the bus does not say where it begins and ends; it is asked again", "topic", from.Topic(), "partition", from.Partition(), "err", err)
			continue
		}
		answer := answers[0]
		if answer.err != nil {
			h.refused(assignments[0], answer.err)
			continue
		}
		if answer.from != from.InitialOffset() {
			h.end(session, topicPartition{from.Topic(), from.Partition()}, answer.taken)
			return taken{}, fmt.Errorf("%s/%d: %w", from.Topic(), from.Partition(), errMoved)
		}
		return answer.taken, nil
	}
	return taken{}, nil
}

// commitWhile commits what the consumer says, from time to time, while the
// assignment lasts. Where the topic is another one by now, the assignment must
// end: the reader asks for offsets, and may have gone on in the new log without its
// beginning.
func (h *sessionHandler) commitWhile(open context.Context, session sarama.ConsumerGroupSession, a *assigned, leave func()) {
	for bus.Pause(open, h.member.every) {
		if err := h.commit(session, a); errors.Is(err, bus.ErrAnotherTopic) {
			h.logger.Error("the topic is not the one that was read; its partitions are assigned again", "topic", a.Topic(), "partition", a.Partition(), "err", err)
			leave()
			return
		}
	}
}

// followEnd asks the partition's leader, from time to time, where it ends: what
// the fetcher has heard of it is worth nothing once the fetcher stands still.
func (h *sessionHandler) followEnd(open context.Context, a *assigned) {
	for failures := 0; bus.Pause(open, h.member.every); {
		end, err := h.member.end(open, a.Topic(), a.Partition())
		switch {
		case open.Err() != nil:
			return
		case err == nil:
			failures = 0
			a.end(end)
		default:
			if failures++; failures == 1 {
				h.logger.Warn("cannot ask where a partition ends: how far behind it is, is not known", "topic", a.Topic(), "partition", a.Partition(), "err", err)
			}
		}
	}
}

// commitTimeout bounds a commit: also the last one, at which the session has
// ended and its generation may still be good.
const commitTimeout = 5 * time.Second

func (h *sessionHandler) commit(session sarama.ConsumerGroupSession, a *assigned) error {
	commit, due := a.commit()
	if !due {
		return nil
	}
	err := h.write(session, topicPartition{a.Topic(), a.Partition()}, a.topicID, commit)
	a.committed(commit, err)
	return err
}

// end makes the last commit of an assignment of which nothing was handed out, and
// revokes it.
func (h *sessionHandler) end(session sarama.ConsumerGroupSession, at topicPartition, t taken) {
	if commit, due := t.consumer.Commit(); due {
		t.consumer.Committed(commit, h.write(session, at, t.topicID, commit))
	}
	t.consumer.Revoke()
}

func (h *sessionHandler) write(session sarama.ConsumerGroupSession, at topicPartition, topicID sarama.Uuid, commit bus.Commit) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(session.Context()), commitTimeout)
	defer cancel()
	return h.member.offsets.commit(ctx, session, at.topic, topicID, at.partition, commit)
}

// Cleanup is called once all partitions of a session are left. Where another
// member has this one's instance, the subscription ends: to join again would
// fence that one, and so on.
func (h *sessionHandler) Cleanup(session sarama.ConsumerGroupSession) error {
	h.mu.Lock()
	unread := h.taken // sarama could not open them
	h.taken = nil
	h.mu.Unlock()
	for at, t := range unread {
		h.end(session, at, t)
	}
	m := h.member
	if m.membership.end() {
		m.ending.Go(func() {
			if err := m.inner.Close(); err != nil { // it waits for this session
				h.logger.Error("cannot leave the consumer group", "err", err)
			}
		})
	}
	return nil
}
