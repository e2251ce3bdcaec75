package kafka_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

func TestReadOfABusThatIsNotThere(t *testing.T) {
	nowhere := kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "bus-test"}, nil)
	if _, err := bus.LastRecord(t.Context(), nowhere, "any", 0); !errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("error is %v, want ErrUnreachable", err)
	}
}

// The last record is found even if it is followed by markers of transactions, however many.
func TestLastRecordBeforeMarkers(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		publish(t, newPublisher(t, cfg, bus.PublisherOptions{}), topic, numbered(0, 100, 0)...)
		transactions(t, cfg, topic, 5)
		msg, err := bus.LastRecord(t.Context(), kafka.New(cfg, nil), topic, 0)
		if err != nil || string(msg.Payload) != "in a transaction" || position(t, msg).Offset != 100+2*4 {
			t.Errorf("the last is %v, %v", msg, err)
		}
	})
}

// A range is read even if a fetch returns only a part of it and retention deletes records
// at the same time.
func TestReadOfRecordsThatAreDeleted(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		spec := oona.TopicSpec{Name: unique("large"), Partitions: 1, MaxMessageBytes: oona.MaxRollupBytes}
		b := kafka.New(cfg, nil)
		if _, err := b.Apply(t.Context(), []oona.TopicSpec{spec}); err != nil {
			t.Fatal(err)
		}
		p := newPublisher(t, cfg, bus.PublisherOptions{MaxMessageBytes: oona.MaxRollupBytes})
		const records = 4
		for range records {
			publish(t, p, spec.Name, message.NewMessage("", bytes.Repeat([]byte("0123456789abcdef"), 9<<20/16)))
		}
		var offsets []int64
		err := b.Read(t.Context(), spec.Name, bus.Range{End: records}, func(msg *message.Message) error {
			if offsets = append(offsets, position(t, msg).Offset); len(offsets) > 1 {
				return nil
			}
			return newAdmin(t, cfg).DeleteRecords(spec.Name, map[int32]int64{0: records - 1})
		})
		if err != nil || offsets[0] != 0 || offsets[len(offsets)-1] != records-1 || len(offsets) == records {
			t.Errorf("offsets %v were read: %v", offsets, err)
		}
	})
}

// transactions writes n records, each in a transaction of its own, and waits for the markers.
func transactions(t *testing.T, cfg kafka.Config, topic string, n int) {
	t.Helper()
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	s.Producer.Idempotent, s.Producer.RequiredAcks, s.Producer.Return.Successes = true, sarama.WaitForAll, true
	s.Net.MaxOpenRequests, s.Producer.Transaction.ID = 1, unique("transaction")
	producer, err := sarama.NewSyncProducer(cfg.Brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	before, err := kafka.New(cfg, nil).Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := producer.BeginTxn(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("in a transaction")}); err != nil {
			t.Fatal(err)
		}
		if err := producer.CommitTxn(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the marker is written", func() bool {
			ends, err := kafka.New(cfg, nil).Extents(t.Context(), topic)
			return err == nil && ends[topic][0].End == before[topic][0].End+2*int64(i+1)
		})
	}
}
