package memory

import (
	"context"
	"fmt"
	"maps"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Refuse sets a check that is called for each published message with its partition. If
// the check returns an error, the message fails with it. The check must not call the Bus.
// nil removes it.
func (b *Bus) Refuse(check func(topic string, partition int32) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = check
}

// RefuseCommits sets a check that is called for each commit. If the check returns an
// error, the commit fails with it. The check must not call the Bus. nil removes it.
func (b *Bus) RefuseCommits(check func(topic string, partition int32) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuseCommit = check
}

// DeleteTopic deletes a topic, with its records and the groups' commits.
func (b *Bus) DeleteTopic(topic string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.topic(topic); err != nil {
		return err
	}
	delete(b.topics, topic)
	for _, g := range b.groups {
		maps.DeleteFunc(g.commits, func(of place, _ bus.Commit) bool { return of.topic == topic })
	}
	return nil
}

// AddPartitions gives a topic n partitions. Members get the new ones with the next
// rebalance.
func (b *Bus) AddPartitions(topic string, n int32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err == nil {
		t.grow(n)
	}
	return err
}

// Retain sets what Retention returns. It deletes nothing; Trim does.
func (b *Bus) Retain(topic string, r bus.Retention) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err == nil {
		t.retention = r
	}
	return err
}

// Trim deletes the records of a partition below an offset, as retention does.
func (b *Bus) Trim(topic string, partition int32, start int64) error {
	return b.change(topic, partition, func(p *log) error {
		if start < p.start || start > p.end() {
			return fmt.Errorf("delete the records of %s/%d below %d: it has %d to %d", topic, partition, start, p.start, p.end())
		}
		p.records = p.records[start-p.start:]
		p.start = start
		return nil
	})
}

// LoseTail deletes the records of a partition from an offset on, like the election of a
// leader that does not have them. The offsets are used again.
func (b *Bus) LoseTail(topic string, partition int32, end int64) error {
	return b.change(topic, partition, func(p *log) error {
		if end < p.start || end > p.end() {
			return fmt.Errorf("delete the records of %s/%d from %d on: it has %d to %d", topic, partition, end, p.start, p.end())
		}
		p.records = p.records[: end-p.start : end-p.start]
		return nil
	})
}

// Freeze stops a partition until Thaw: it takes no records, hands out none, and does not
// say where it ends.
func (b *Bus) Freeze(topic string, partition int32) error {
	return b.change(topic, partition, func(p *log) error {
		p.frozen = true
		return nil
	})
}

// Thaw ends Freeze and appends the messages that have waited, in order of arrival.
func (b *Bus) Thaw(topic string, partition int32) error {
	return b.change(topic, partition, func(p *log) error {
		p.frozen = false
		for _, waiting := range p.waiting {
			waiting.settle(b.append(p, waiting))
		}
		p.waiting = nil
		return nil
	})
}

// Waiting returns the number of messages that wait for Thaw.
func (b *Bus) Waiting(topic string, partition int32) int {
	n := 0
	_ = b.change(topic, partition, func(p *log) error {
		for _, waiting := range p.waiting {
			n += len(waiting.records)
		}
		return nil
	})
	return n
}

func (b *Bus) change(topic string, number int32, change func(*log) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.partition(topic, number)
	if err != nil {
		return err
	}
	defer p.wake()
	return change(p)
}

// Away is a reader of a bus that does not answer.
type Away struct {
	Asked func() // is called by Subscribe; nil: nothing is
}

// Subscribe returns bus.ErrUnreachable.
func (a Away) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	if a.Asked != nil {
		a.Asked()
	}
	return nil, bus.ErrUnreachable
}

// Ranges returns nil, as Subscribe never succeeds.
func (Away) Ranges(string) []bus.Range { return nil }

// Close does nothing.
func (Away) Close() error { return nil }
