package kafka

import (
	"context"
	"sync"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// leastFetch is the smallest size of a fetch of one partition.
const leastFetch = 16 << 10

// ahead limits the bytes that the partitions of a member have fetched in advance, that is,
// before the owner has taken them. One half of the limit is divided among the partitions of
// the topic: it sets the sizes of their fetches. So a partition whose handler waits does not
// keep others from fetching. The other half is a reserve, because Kafka sends a batch even if it is
// larger than a fetch. While the limit is exceeded, all partitions are paused. Each of them can
// still hand out the records that it has, so that memory becomes free.
//
// A nil ahead has no limit.
type ahead struct {
	limit int64
	fetch int64 // size of a fetch of one partition; set by Subscribe

	mu     sync.Mutex
	opened map[*assigned]struct{}
	held   int64
	paused bool
}

func newAhead(o bus.MemberOptions) *ahead {
	if o.ReadAheadAll == 0 {
		return nil
	}
	return &ahead{limit: int64(o.ReadAheadAll), opened: make(map[*assigned]struct{})}
}

// divideFetches sets the size of a fetch of one partition, if all is not 0, for a topic with the
// given number of partitions. It also sets the size of responses, because the records of a
// waiting partition may keep the whole response in memory in which they arrived.
func divideFetches(of *sarama.Config, all, partitions int) {
	if all == 0 {
		return
	}
	part := int64(all / max(partitions, 1))
	fetch := &of.Consumer.Fetch
	fetch.Default = int32(max(min(int64(fetch.Default), part/2), leastFetch))
	fetch.MaxBytes = int32(max(min(int64(fetch.MaxBytes), part), int64(fetch.Default)))
	of.ChannelBufferSize = 1
}

// divideAhead divides the limit among the partitions that the topic has now.
func (m *Member) divideAhead(ctx context.Context) error {
	if m.ahead == nil {
		return nil
	}
	partitions, err := m.offsets.count(ctx, m.topic)
	if err != nil {
		return err
	}
	divideFetches(m.reading, int(m.ahead.limit), int(partitions))
	m.ahead.fetch = int64(m.reading.Consumer.Fetch.Default)
	return nil
}

// pausable has methods of sarama's claim that are not part of its interface.
type pausable interface {
	Pause()
	Resume()
}

func (a *assigned) pause(yes bool) {
	switch p, ok := a.ConsumerGroupClaim.(pausable); {
	case !ok:
	case yes:
		p.Pause()
	default:
		p.Resume()
	}
}

// open adds a partition.
func (h *ahead) open(a *assigned) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened[a] = struct{}{}
	a.pause(h.paused)
}

// close removes a partition. Its bytes no longer count.
func (h *ahead) close(a *assigned) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.opened, a)
	h.set(a, 0)
}

// took updates the bytes that a partition may hold after it has handed out a record: the rest of
// a fetch, and in addition this record and the next one, which sarama has ready when it fetches.
func (h *ahead) took(a *assigned, r *sarama.ConsumerMessage) {
	if h == nil {
		return
	}
	size := int64(len(r.Key) + len(r.Value))
	h.hold(a, max(h.fetch, size)+2*size)
}

// hold sets the number of bytes that a partition holds.
func (h *ahead) hold(a *assigned, bytes int64) {
	if h == nil || a.held == bytes {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(a, bytes)
}

func (h *ahead) set(a *assigned, bytes int64) {
	h.held += bytes - a.held
	a.held = bytes
	if over := h.held > h.limit; over != h.paused {
		h.paused = over
		for a := range h.opened {
			a.pause(over)
		}
	}
}
