package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
)

// Patient returns a configuration for a machine that may stop for a minute: its timeouts are longer
// than that.
func Patient(c Config) Config {
	c.Patience = 2 * time.Minute
	return c
}

// Waiting returns the number of records of a partition that are not acknowledged.
func Waiting(p *Publisher, topic string, partition int32) int {
	l := p.producer.lane(topicPartition{topic, partition})
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, part := range l.queue {
		n += len(part.records)
	}
	return n
}

// EndOf is for TestOffsetsOfALeaderThatDoesNotAnswer.
func EndOf(ctx context.Context, cfg Config, client sarama.Client, topic string, partition int32) (int64, error) {
	of := topicPartition{topic, partition}
	ends, err := offsetsAt(ctx, cfg, client, sarama.OffsetNewest, []topicPartition{of})
	return ends[of], err
}
