package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona/bus"
)

// describe returns the assignments of partitions, in their order, and the id of the topic. It
// asks for all partitions in one request, because a rebalance waits for the answer.
func (m *Member) describe(ctx context.Context, topic string, partitions ...int32) (_ []bus.Assignment, id sarama.Uuid, err error) {
	commits, err := m.offsets.fetch(ctx, topic, partitions...)
	if err != nil {
		return nil, id, err
	}
	count, err := m.offsets.count(ctx, topic)
	if err != nil {
		return nil, id, err
	}
	if id, err = m.offsets.topicID(ctx, topic); err != nil { // asked before the offsets, so that they belong to this topic or to a later one
		return nil, id, err
	}
	oldest, err := m.offsets.at(ctx, sarama.OffsetOldest, topic, partitions)
	if err != nil {
		return nil, id, err
	}
	ends, err := m.offsets.at(ctx, sarama.OffsetNewest, topic, partitions)
	if err != nil {
		return nil, id, err
	}
	assignments := make([]bus.Assignment, len(partitions))
	for i, p := range partitions {
		assignments[i] = bus.Assignment{
			Topic: topic, Partition: p, Partitions: count,
			LogStart: oldest[i], LogEnd: ends[i], Committed: commits[i],
		}
	}
	return assignments, id, nil
}

// offer describes assigned partitions, and asks the owner from which offsets to read them. It
// returns the assignments and, in the same order, the answers.
func (m *Member) offer(ctx context.Context, topic string, partitions ...int32) ([]bus.Assignment, []answer, error) {
	assignments, id, err := m.describe(ctx, topic, partitions...)
	if err != nil {
		return nil, nil, err
	}
	answers := m.assign(ctx, assignments)
	for i := range answers {
		answers[i].topicID = id
	}
	return assignments, answers, nil
}

// answer is the owner's answer to an assignment.
type answer struct {
	taken
	err error
}

// A leader that was just elected, or that was replaced and does not know it, may report an end
// that is too low. So it is asked this many times, with pauses.
const (
	endAttempts = 6
	endPause    = 500 * time.Millisecond
)

// assign asks the owner from which offsets to read partitions of one topic. If the owner finds
// that a log is too short, assign asks for the end of the log again.
func (m *Member) assign(ctx context.Context, assignments []bus.Assignment) []answer {
	answers := make([]answer, len(assignments))
	all := make([]int, len(assignments))
	for i := range assignments {
		all[i] = i
	}
	short := m.ask(ctx, assignments, all, answers)
	for attempt := 2; attempt <= endAttempts && len(short) > 0; attempt++ {
		if err := m.lookAgain(ctx, assignments, short); err != nil {
			for _, i := range short {
				answers[i].err = errors.Join(answers[i].err, err)
			}
			return answers
		}
		for _, i := range short {
			assignments[i].Settled = attempt == endAttempts
		}
		short = m.ask(ctx, assignments, short, answers)
	}
	return answers
}

// askedTogether is the number of partitions about which the owner is asked at the same time.
const askedTogether = 16

// ask asks the owner about some of the assignments. It returns those whose logs are too short for
// the owner.
func (m *Member) ask(ctx context.Context, assignments []bus.Assignment, which []int, answers []answer) (short []int) {
	var asking errgroup.Group
	asking.SetLimit(askedTogether)
	for _, i := range which {
		asking.Go(func() error {
			from, consumer, err := m.owner.Assign(ctx, assignments[i])
			answers[i] = answer{taken{from: from, consumer: consumer}, err}
			return nil
		})
	}
	_ = asking.Wait() // the errors are in the answers, so Wait returns none
	for _, i := range which {
		if errors.Is(answers[i].err, bus.ErrShort) {
			short = append(short, i)
		}
	}
	return short
}

// lookAgain waits, and then asks for the ends of some of the logs again.
func (m *Member) lookAgain(ctx context.Context, assignments []bus.Assignment, which []int) error {
	if !bus.Pause(ctx, endPause) {
		return ctx.Err()
	}
	topic := assignments[which[0]].Topic
	if err := m.offsets.refresh(ctx, topic); err != nil {
		return err
	}
	partitions := make([]int32, len(which))
	for n, i := range which {
		partitions[n] = assignments[i].Partition
	}
	ends, err := m.offsets.at(ctx, sarama.OffsetNewest, topic, partitions)
	if err != nil {
		return fmt.Errorf("ask again for the end of %s: %w", topic, err)
	}
	for n, i := range which {
		assignments[i].LogEnd = ends[n]
	}
	return nil
}

// end asks for the end of a partition, until ctx ends. sarama's request cannot be
// cancelled: it runs until its own timeout, and Close waits for it.
func (m *Member) end(ctx context.Context, topic string, partition int32) (int64, error) {
	type answer struct {
		end int64
		err error
	}
	answers := make(chan answer, 1)
	m.ending.Go(func() {
		end, err := m.offsets.end(topic, partition)
		answers <- answer{end, err}
	})
	select {
	case a := <-answers:
		return a.end, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
