package kafka

// Waiting returns how many records of a partition are not acknowledged.
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

// OffsetsAt is for TestOffsetsOfALeaderThatDoesNotAnswer.
var OffsetsAt = offsetsAt
