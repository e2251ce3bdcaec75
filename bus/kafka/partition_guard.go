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
	changed    atomic.Pointer[bus.PartitionsError] // set for good
}

func newPartitionGuard(cfg Config, client sarama.Client, topic string) (*partitionGuard, error) {
	partitions, err := partitionsOf(context.Background(), cfg, client, topic)
	if err != nil {
		return nil, err
	}
	return &partitionGuard{topic: topic, partitions: int32(len(partitions))}, nil
}

// check compares a number of partitions with the first one. Once they were different, it
// returns a *bus.PartitionsError for good.
func (p *partitionGuard) check(partitions int32) error {
	if partitions != p.partitions {
		p.changed.CompareAndSwap(nil, &bus.PartitionsError{Topic: p.topic, Had: p.partitions, Has: partitions})
	}
	if err := p.changed.Load(); err != nil {
		return err
	}
	return nil
}

// look checks the metadata of a connection, which asks the brokers if it does not know
// the topic.
func (p *partitionGuard) look(client sarama.Client) error {
	partitions, err := client.Partitions(p.topic)
	if err != nil { // publishing reports it
		return p.check(p.partitions)
	}
	return p.check(int32(len(partitions)))
}

// known is like look, but never asks the brokers.
func (p *partitionGuard) known(client sarama.Client) error {
	if topics, err := client.Topics(); err != nil || !slices.Contains(topics, p.topic) {
		return p.check(p.partitions)
	}
	return p.look(client)
}

// partitioner returns the partitioner of a topic.
func (p *partitionGuard) partitioner(topic string) sarama.Partitioner {
	if p == nil || p.topic != topic {
		return newPartitioner(topic)
	}
	return guardedPartitioner{newPartitioner(topic), p}
}

// guardedPartitioner checks the number of partitions for each record.
type guardedPartitioner struct {
	partitioner
	guard *partitionGuard
}

func (p guardedPartitioner) Partition(msg *sarama.ProducerMessage, partitions int32) (int32, error) {
	if err := p.guard.check(partitions); err != nil {
		return 0, err
	}
	return p.partitioner.Partition(msg, partitions)
}
