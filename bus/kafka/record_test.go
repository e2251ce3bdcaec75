package kafka

import (
	"maps"
	"testing"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
)

// If a record has several headers with the same name, the last one counts.
func TestLastHeaderHolds(t *testing.T) {
	header := func(name, value string) *sarama.RecordHeader {
		return &sarama.RecordHeader{Key: []byte(name), Value: []byte(value)}
	}
	msg := newMessage(&sarama.ConsumerMessage{Headers: []*sarama.RecordHeader{header("a", "1"), header("b", "2"), header("a", "3")}})
	if want := (message.Metadata{"a": "3", "b": "2"}); !maps.Equal(msg.Metadata, want) {
		t.Errorf("%q, want %q", msg.Metadata, want)
	}
}
