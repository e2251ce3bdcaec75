package kafka

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// guardRefresh is the time between two refreshes of the metadata of a publisher with a
// pinned topic. Metadata are also refreshed when a leader moves.
const guardRefresh = 10 * time.Second

// partitionGuard remembers the number of partitions that a pinned topic had at first.
type partitionGuard struct {
	topic      string
	partitions int32
	changed    atomic.Pointer[bus.PartitionsError] // never reset once it is set
}

func newPartitionGuard(cfg Config, client sarama.Client, topic string) (*partitionGuard, error) {
	partitions, err := partitionsOf(context.Background(), cfg, client, topic)
	if err != nil {
		return nil, err
	}
	return &partitionGuard{topic: topic, partitions: int32(len(partitions))}, nil
}

// check compares the number of partitions of the pinned topic with the number that it had first.
// For other topics it does nothing. Once the numbers differ, check always returns a
// *bus.PartitionsError. If there are no partitions, the topic is not known at the moment.
func (p *partitionGuard) check(topic string, known []int32) error {
	if p == nil || topic != p.topic {
		return nil
	}
	if has := int32(len(known)); has > 0 && has != p.partitions {
		p.changed.CompareAndSwap(nil, &bus.PartitionsError{Topic: topic, Had: p.partitions, Has: has})
	}
	if err := p.changed.Load(); err != nil {
		return err
	}
	return nil
}

// pinned is like check, with the metadata that the client already has. It sends no request.
func (p *partitionGuard) pinned(client sarama.Client) error {
	if p == nil {
		return nil
	}
	var known []int32
	if topics, err := client.Topics(); err == nil && slices.Contains(topics, p.topic) {
		known, _ = client.Partitions(p.topic) // an error means that the topic is not known now
	}
	return p.check(p.topic, known)
}
