package memory

import (
	"fmt"
	"time"
)

// Refuse has each message that is published pass a check first: one for whose
// partition it returns an error fails with that. The check must not call the Bus.
// Nil ends it.
func (b *Bus) Refuse(check func(topic string, partition int32) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = check
}

// DeleteTopic deletes a topic with its records and the groups' commits of it.
func (b *Bus) DeleteTopic(topic string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.topic(topic); err != nil {
		return err
	}
	delete(b.topics, topic)
	for key, g := range b.groups {
		if key.topic == topic {
			clear(g.commits)
		}
	}
	return nil
}

// AddPartitions gives a topic n partitions. Members of groups are not assigned those
// that are new before the next rebalance.
func (b *Bus) AddPartitions(topic string, n int32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err == nil {
		t.grow(n)
	}
	return err
}

// Retain sets what Retention returns. Nothing is deleted: see Trim.
func (b *Bus) Retain(topic string, d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err == nil {
		t.retention = d
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

// LoseTail deletes the records of a partition from an offset on, as an election of
// a leader that does not have them does. Their offsets are given to other records
// later.
func (b *Bus) LoseTail(topic string, partition int32, end int64) error {
	return b.change(topic, partition, func(p *log) error {
		if end < p.start || end > p.end() {
			return fmt.Errorf("delete the records of %s/%d from %d on: it has %d to %d", topic, partition, end, p.start, p.end())
		}
		p.records = p.records[: end-p.start : end-p.start]
		return nil
	})
}

// Freeze has a partition take no records, hand out none and say nothing of its end,
// until Thaw.
func (b *Bus) Freeze(topic string, partition int32) error {
	return b.change(topic, partition, func(p *log) error {
		p.frozen = true
		return nil
	})
}

// Thaw ends Freeze: what waited is appended in the order in which it came.
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

// Waiting returns how many messages wait for Thaw.
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
