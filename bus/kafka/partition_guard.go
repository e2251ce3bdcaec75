package kafka

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// guardRefresh is how often a publisher with a guarded topic looks at the topics
// of the bus, besides whenever a leader moves.
const guardRefresh = 10 * time.Second

// partitionGuard holds a topic to the number of partitions that it had at first.
type partitionGuard struct {
	topic      string
	partitions int32
	changed    atomic.Pointer[bus.PartitionsError] // once it was seen; for good
}

func newPartitionGuard(cfg Config, client sarama.Client, topic string) (*partitionGuard, error) {
	partitions, err := partitionsOf(context.Background(), cfg, client, topic)
	if err != nil {
		return nil, err
	}
	return &partitionGuard{topic: topic, partitions: int32(len(partitions))}, nil
}

// check takes notice of a number of partitions and returns nil, or a
// *bus.PartitionsError once it was another.
func (p *partitionGuard) check(partitions int32) error {
	if partitions != p.partitions {
		p.changed.CompareAndSwap(nil, &bus.PartitionsError{Topic: p.topic, Had: p.partitions, Has: partitions})
	}
	if err := p.changed.Load(); err != nil {
		return err
	}
	return nil
}

// look checks what a connection knows of the topic, which it keeps up to date
// by itself.
func (p *partitionGuard) look(client sarama.Client) error {
	partitions, err := client.Partitions(p.topic)
	if err != nil { // publishing finds out what is the matter
		return p.check(p.partitions)
	}
	return p.check(int32(len(partitions)))
}

// known is look without asking the bus.
func (p *partitionGuard) known(client sarama.Client) error {
	if topics, err := client.Topics(); err != nil || !slices.Contains(topics, p.topic) {
		return p.check(p.partitions)
	}
	return p.look(client)
}

// partitioner makes the partitioner of a topic.
func (p *partitionGuard) partitioner(topic string) sarama.Partitioner {
	if p == nil || p.topic != topic {
		return newPartitioner(topic)
	}
	return guardedPartitioner{newPartitioner(topic), p}
}

// guardedPartitioner learns for each record how many partitions its topic has, and
// fails a record if the number has changed.
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
