package kafka

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// record makes the Kafka record of a message. Errors wrap an *oona.FieldError
// that names the metadata.
func record(topic string, msg *message.Message) (*sarama.ProducerMessage, error) {
	r := &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(msg.Payload)}
	for name, value := range msg.Metadata {
		switch {
		case !strings.HasPrefix(name, "$"):
			r.Headers = append(r.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
		case strings.HasPrefix(name, "$$"):
			r.Headers = append(r.Headers, sarama.RecordHeader{Key: []byte(name[1:]), Value: []byte(value)})
		case name == oona.MetaKey:
			r.Key = sarama.StringEncoder(value)
		case name == oona.MetaTimestamp:
			micros, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, &oona.FieldError{Field: name, Reason: fmt.Sprintf("is %q, not a number of microseconds", value)}
			}
			r.Timestamp = oona.Micros(micros).Time()
		case name == oona.MetaToPartition:
			partition, err := strconv.ParseInt(value, 10, 32)
			if err != nil || partition < 0 {
				return nil, &oona.FieldError{Field: name, Reason: fmt.Sprintf("is %q, not the number of a partition", value)}
			}
			r.Metadata = toPartition(partition)
		}
	}
	return r, nil
}

// newMessage makes the message of a Kafka record that was read under a claim.
// It takes the record's bytes, without a copy.
func newMessage(r *sarama.ConsumerMessage, headers []*sarama.RecordHeader, claim string) *message.Message {
	metadata := make(message.Metadata, len(headers)+5)
	for _, h := range headers {
		name := string(h.Key)
		if strings.HasPrefix(name, "$") {
			name = "$" + name
		}
		metadata[name] = string(h.Value)
	}
	if r.Key != nil {
		metadata[oona.MetaKey] = string(r.Key)
	}
	metadata[oona.MetaTimestamp] = strconv.FormatInt(int64(oona.MicrosOf(r.Timestamp)), 10)
	metadata[oona.MetaPartition] = strconv.Itoa(int(r.Partition))
	metadata[oona.MetaOffset] = strconv.FormatInt(r.Offset, 10)
	metadata[oona.MetaClaim] = claim
	msg := message.NewMessage("", r.Value)
	msg.Metadata = metadata
	return msg
}
