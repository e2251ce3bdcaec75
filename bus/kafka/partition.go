package kafka

import "github.com/IBM/sarama"

// toPartition, as the Metadata of a sarama message, is where it must go.
type toPartition int32

// partitioner sends a message to the partition that it asks for, or by its key
// where Java's clients would send it, or without a key anywhere. So keyed and
// directed messages go in one batch.
type partitioner struct {
	byKey sarama.DynamicConsistencyPartitioner
}

func newPartitioner(topic string) partitioner {
	return partitioner{sarama.NewMurmur2Partitioner(topic).(sarama.DynamicConsistencyPartitioner)}
}

func (p partitioner) Partition(msg *sarama.ProducerMessage, partitions int32) (int32, error) {
	if to, ok := msg.Metadata.(toPartition); ok {
		return int32(to), nil // sarama refuses one that is not there
	}
	return p.byKey.Partition(msg, partitions)
}

func (p partitioner) RequiresConsistency() bool { return true }

// MessageRequiresConsistency is false where another partition would do as well
// while one has no leader.
func (p partitioner) MessageRequiresConsistency(msg *sarama.ProducerMessage) bool {
	_, directed := msg.Metadata.(toPartition)
	return directed || p.byKey.MessageRequiresConsistency(msg)
}
