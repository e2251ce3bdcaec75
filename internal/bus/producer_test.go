package bus

import (
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// What a publisher promises rests on these settings, and no test on a healthy
// broker would notice their loss.
func TestProducerSettings(t *testing.T) {
	s := Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "c"}.producer(t.Context(), PublisherOptions{MaxMessageBytes: 1 << 20, Compression: "lz4", Patience: time.Minute})
	if !s.Producer.Idempotent || s.Net.MaxOpenRequests != 1 || s.Producer.RequiredAcks != sarama.WaitForAll {
		t.Errorf("idempotent %v, %d open requests, acks %d", s.Producer.Idempotent, s.Net.MaxOpenRequests, s.Producer.RequiredAcks)
	}
	if s.Producer.Compression != sarama.CompressionLZ4 {
		t.Errorf("compression is %v", s.Producer.Compression)
	}
	if least := int(time.Minute / maxBackoff / 2); s.Producer.Retry.Max < least {
		t.Errorf("%d retries are not a minute's", s.Producer.Retry.Max)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	consumer := Config{ClientID: "c"}.consumer()
	if consumer.Consumer.Offsets.Initial != sarama.OffsetOldest || consumer.Consumer.Offsets.AutoCommit.Enable || consumer.Consumer.Group.ResetInvalidOffsets {
		t.Error("a consumer would skip what it has not read, or commit by itself")
	}
}
