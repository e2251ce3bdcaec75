package kafka

import (
	"testing"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// The guarantees of a publisher depend on these settings, and no test on a healthy broker
// would notice a wrong one.
func TestProducerSettings(t *testing.T) {
	s := Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "c"}.producer(bus.PublisherOptions{Compression: "lz4", Pin: "t"})
	if s.Producer.Compression != sarama.CompressionLZ4 || s.Metadata.RefreshFrequency != guardRefresh {
		t.Errorf("compression is %v, topics are looked at every %s", s.Producer.Compression, s.Metadata.RefreshFrequency)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	consumer := Config{ClientID: "c"}.consumer()
	if consumer.Consumer.Offsets.Initial != sarama.OffsetOldest || consumer.Consumer.Offsets.AutoCommit.Enable || consumer.Consumer.Group.ResetInvalidOffsets {
		t.Error("a consumer would skip what it has not read, or commit by itself")
	}
}
