package kafka

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// outgoing is a record that is to be written.
type outgoing struct {
	sarama.Record // without offset and time
	index         int
	target        bus.Target
	size          int // at most, in a batch
}

const (
	recordOverhead = 5*binary.MaxVarintLen32 + binary.MaxVarintLen64 + 1
	headerOverhead = 2 * binary.MaxVarintLen32
)

// newOutgoing returns the record of a message, which has an index in its call. Errors wrap
// an *oona.FieldError.
func newOutgoing(index int, msg *message.Message) (*outgoing, error) {
	r := &outgoing{index: index, target: bus.TargetOf(msg)}
	if (r.target.Directed || r.target.Hashed) && r.target.Partition < 0 {
		return nil, &oona.FieldError{Field: "partition", Reason: fmt.Sprintf("is %d; partitions are numbered from 0", r.target.Partition)}
	}
	r.Key, r.Value = r.target.Key, msg.Payload
	r.size = recordOverhead + len(r.Key) + len(r.Value)
	for name, value := range msg.Metadata {
		r.Headers = append(r.Headers, &sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
		r.size += headerOverhead + len(name) + len(value)
	}
	return r, nil
}

// partition returns the record's own partition, or that of its hash or its key, or any if
// it has none of them.
func (r *outgoing) partition(partitions int) (int32, error) {
	switch {
	case r.target.Directed && int(r.target.Partition) >= partitions:
		return 0, sarama.ErrInvalidPartition
	case r.target.Directed:
		return r.target.Partition, nil
	case r.target.Hashed:
		return r.target.Partition % int32(partitions), nil
	case r.Key != nil:
		return bus.PartitionOf(r.Key, partitions), nil
	}
	return rand.Int32N(int32(partitions)), nil
}

// newMessage returns the message of a Kafka record. It uses the record's bytes without a
// copy.
func newMessage(r *sarama.ConsumerMessage) *message.Message {
	msg := message.NewMessage("", r.Value)
	for _, h := range r.Headers {
		msg.Metadata[string(h.Key)] = string(h.Value)
	}
	return msg
}

// positionOf returns the position of a record.
func positionOf(r *sarama.ConsumerMessage) bus.Position {
	return bus.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Appended: oona.MicrosOf(r.Timestamp), Key: r.Key}
}
