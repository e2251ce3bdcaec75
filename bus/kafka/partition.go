package kafka

import "github.com/IBM/sarama"

// toPartition is the Metadata of a sarama message with a given partition.
type toPartition int32

// partitioner returns the partition of a message: the given one, or the one that the Java
// clients choose for the key, or any without a key. So messages with and without a given
// partition go in one batch.
type partitioner struct {
	byKey sarama.DynamicConsistencyPartitioner
}

func newPartitioner(topic string) partitioner {
	return partitioner{sarama.NewMurmur2Partitioner(topic).(sarama.DynamicConsistencyPartitioner)}
}

func (p partitioner) Partition(msg *sarama.ProducerMessage, partitions int32) (int32, error) {
	if to, ok := msg.Metadata.(toPartition); ok {
		return int32(to), nil // sarama refuses one that does not exist
	}
	return p.byKey.Partition(msg, partitions)
}

func (p partitioner) RequiresConsistency() bool { return true }

// MessageRequiresConsistency returns false if another partition can be used while one has
// no leader.
func (p partitioner) MessageRequiresConsistency(msg *sarama.ProducerMessage) bool {
	_, directed := msg.Metadata.(toPartition)
	return directed || p.byKey.MessageRequiresConsistency(msg)
}
