package kafka

import (
	"context"
	"sync"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// leastFetch is the smallest size of a fetch of one partition.
const leastFetch = 16 << 10

// ahead limits what all partitions of a member have fetched and the owner has not taken.
// One half of the limit is divided among the partitions of the topic, as the sizes of
// their fetches. So partitions whose handlers wait do not keep others from fetching. The
// other half is for what the sizes do not limit: Kafka sends a batch that is larger than
// a fetch. While more is held than the limit, all partitions are paused. Each of them can
// hand out what it holds, so that some of it is free in the end.
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

// divideFetches sets the sizes of fetches of a topic with so many partitions, if all is
// not 0, and of responses: the records of a partition that waits may keep in memory the
// whole response with which they came.
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

// divideAhead divides what is fetched ahead among the partitions that the topic has now.
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

// pausable is the part of sarama's claim that its interface does not show.
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

// close removes a partition. What it holds is dropped.
func (h *ahead) close(a *assigned) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.opened, a)
	h.set(a, 0)
}

// took counts what a partition may hold, now that it has handed out a record: the rest of
// a fetch, besides this record and the next one, which sarama has ready when it fetches.
func (h *ahead) took(a *assigned, r *sarama.ConsumerMessage) {
	if h == nil {
		return
	}
	size := int64(len(r.Key) + len(r.Value))
	h.hold(a, max(h.fetch, size)+2*size)
}

// hold sets how many bytes a partition holds.
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
