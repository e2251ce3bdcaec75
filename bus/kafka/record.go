package kafka

import (
	"fmt"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// record returns the Kafka record of a message. Errors wrap an *oona.FieldError.
func record(topic string, msg *message.Message) (*sarama.ProducerMessage, error) {
	r := &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(msg.Payload)}
	for name, value := range msg.Metadata {
		r.Headers = append(r.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
	}
	to := bus.TargetOf(msg)
	if to.Key != nil {
		r.Key = sarama.ByteEncoder(to.Key)
	}
	if to.Time != 0 {
		r.Timestamp = to.Time.Time()
	}
	if to.Directed {
		if to.Partition < 0 {
			return nil, &oona.FieldError{Field: "partition", Reason: fmt.Sprintf("is %d; partitions are numbered from 0", to.Partition)}
		}
		r.Metadata = toPartition(to.Partition)
	}
	return r, nil
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
