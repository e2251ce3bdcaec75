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

// sessionHandler handles the sessions of a member, one after the other. It replaces
// Watermill's handler, which leaves a partition while a handler still has its last
// message, and commits acked messages.
type sessionHandler struct {
	member *Member
	logger *slog.Logger

	mu    sync.Mutex
	taken map[topicPartition]taken // in this session, until they are read
}

// taken is an assignment that the owner has taken.
type taken struct {
	from     int64
	consumer bus.Consumer
	topicID  sarama.Uuid
}

// Setup asks the owner where to read each partition, as sarama opens partitions at their
// commits.
func (h *sessionHandler) Setup(session sarama.ConsumerGroupSession) error {
	for topic, partitions := range session.Claims() {
		// A member that joins with the instance of another one gets its assignment,
		// whatever it subscribes to.
		if topic != h.member.topic && len(partitions) > 0 {
			err := fmt.Errorf("%w: the assigned topic is %s, and this member reads %s", bus.ErrForeignAssignment, topic, h.member.topic)
			h.logger.Error("this member leaves the consumer group", "err", err)
			h.member.membership.refuse(err)
			return err
		}
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
				from = min(max(a.Committed.Offset, a.LogStart), a.LogEnd) // sarama opens it, although it is not read
			}
			// This changes only the session's consumer: nothing is committed.
			session.MarkOffset(topic, a.Partition, from, "")
			session.ResetOffset(topic, a.Partition, from, "")
		}
	}
	h.member.membership.begin(session)
	return session.Context().Err()
}

func (h *sessionHandler) refused(a bus.Assignment, err error) {
	h.logger.Error("a partition that the consumer group has assigned cannot be read yet; trying again", "topic", a.Topic, "partition", a.Partition, "err", err)
}

func (h *sessionHandler) keep(a bus.Assignment, t taken) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken == nil {
		h.taken = make(map[topicPartition]taken)
	}
	h.taken[topicPartition{a.Topic, a.Partition}] = t
}

// ConsumeClaim returns when the assignment has ended. It marks no record as consumed in
// the session, so only the commits of the Consumer are made.
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
	a := &assigned{ConsumerGroupClaim: from, consumer: t.consumer, topicID: t.topicID, ahead: h.member.ahead}
	a.ahead.open(a)
	defer a.ahead.close(a)
	var beside sync.WaitGroup
	open, end := context.WithCancel(context.WithoutCancel(session.Context()))
	defer end()
	reading, leave := context.WithCancel(session.Context())
	defer leave()
	beside.Go(func() { h.commitWhile(open, session, a, leave) })
	beside.Go(func() { h.followEnd(open, a) })
	grace := handlerGrace + h.member.offsets.cfg.Patience
	if !a.handOut(reading, h.member.out, grace) {
		h.logger.Error("a message of a partition is still being processed, although the consumer group has taken the partition away", "topic", from.Topic(), "partition", from.Partition(), "waited", grace)
	}
	end()
	beside.Wait()
	_ = h.commit(session, a) // the Consumer has the error
	return nil
}

const (
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// errMoved ends a session if a partition must be read from another offset than the one at
// which sarama has opened it.
var errMoved = errors.New("the partition must be read from another offset; the consumer group assigns it again")

// takeAgain asks the owner again until it takes the partition, while the member has it:
// giving the partition up would return it to the member, with a rebalance of the whole
// group. It returns no consumer if the session ends first.
func (h *sessionHandler) takeAgain(session sarama.ConsumerGroupSession, from sarama.ConsumerGroupClaim) (taken, error) {
	ctx := session.Context()
	for wait := retryMin; bus.Pause(ctx, wait); wait = min(2*wait, retryMax) {
		assignments, answers, err := h.member.offer(ctx, from.Topic(), from.Partition())
		if err != nil {
			h.logger.Error("a partition that the consumer group has assigned cannot be read yet, because the brokers do not say where it begins and ends; trying again", "topic", from.Topic(), "partition", from.Partition(), "err", err)
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

// commitWhile makes the Consumer's commits while the assignment lasts. It ends the
// assignment if the topic was deleted and created again: sarama reads by offset, and may
// have continued in the new log without its beginning.
func (h *sessionHandler) commitWhile(open context.Context, session sarama.ConsumerGroupSession, a *assigned, leave func()) {
	for bus.Pause(open, h.member.every) {
		if err := h.commit(session, a); errors.Is(err, bus.ErrAnotherTopic) {
			h.logger.Error("the topic was deleted and created again; its partitions are assigned again", "topic", a.Topic(), "partition", a.Partition(), "err", err)
			leave()
			return
		}
	}
}

// followEnd periodically asks the partition's leader for the end of the partition. What
// the fetcher knows of the end is useless when the fetcher is stuck.
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
				h.logger.Warn("cannot ask the brokers where a partition ends, so its lag is not known; trying again", "topic", a.Topic(), "partition", a.Partition(), "err", err)
			}
		}
	}
}

// commitTimeout limits a commit, including the last one, which is made after the session
// has ended, while its generation may still be valid.
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

// end makes the last commit of an assignment without messages, and revokes it.
func (h *sessionHandler) end(session sarama.ConsumerGroupSession, at topicPartition, t taken) {
	if commit, due := t.consumer.Commit(); due {
		t.consumer.Committed(commit, h.write(session, at, t.topicID, commit))
	}
	t.consumer.Revoke()
}

func (h *sessionHandler) write(session sarama.ConsumerGroupSession, at topicPartition, topicID sarama.Uuid, commit bus.Commit) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(session.Context()), commitTimeout+h.member.offsets.cfg.Patience)
	defer cancel()
	return h.member.offsets.commit(ctx, session, at.topic, topicID, at.partition, commit)
}

// Cleanup is called after all partitions of a session were left. If another member has
// this one's instance, the subscription ends: joining again would fence that member, and
// so on.
func (h *sessionHandler) Cleanup(session sarama.ConsumerGroupSession) error {
	h.mu.Lock()
	unread := h.taken // sarama has not opened them
	h.taken = nil
	h.mu.Unlock()
	for at, t := range unread {
		h.end(session, at, t)
	}
	m := h.member
	if m.membership.end() {
		m.ending.Go(func() {
			if err := m.inner.Close(); err != nil { // it waits for the end of this session
				h.logger.Error("cannot leave the consumer group; the brokers remove this member when its session times out", "err", err)
			}
		})
	}
	return nil
}
