package kafka_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// A partition is read whole, with keys, headers and append times, and nothing of
// its neighbours.
func TestReadPartition(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 2, true)
		p := newPublisher(t, cfg, kafka.PublisherOptions{Compression: "lz4"})
		read := func(partition int32) (all []*message.Message) {
			t.Helper()
			err := kafka.ReadPartition(t.Context(), cfg, topic, partition, func(msg *message.Message) error { all = append(all, msg); return nil })
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		if all := read(1); len(all) != 0 {
			t.Errorf("an empty partition has %d records", len(all))
		}
		publish(t, p, topic, numbered(0, 300, 1)...)
		publish(t, p, topic, newMessage("other", toPartition, "0"))
		publish(t, p, topic, newMessage("last", toPartition, "1", withKey, "k", "h", "v"))
		all := read(1)
		if len(all) != 301 {
			t.Fatalf("%d records", len(all))
		}
		for i, msg := range all {
			if position(t, msg).Offset != int64(i) || int64(position(t, msg).Partition) != 1 {
				t.Fatalf("record %d has %v", i, msg.Metadata)
			}
		}
		last, with := all[300], readAll(t, cfg, topic, 302)
		i := slices.IndexFunc(with, func(msg *message.Message) bool { return string(msg.Payload) == "last" })
		for name, value := range with[i].Metadata {
			if last.Metadata[name] != value {
				t.Errorf("%s is %q, and a Reader says %q", name, last.Metadata[name], value)
			}
		}
		if last.Metadata["h"] != "v" || string(position(t, last).Key) != "k" || string(last.Payload) != "last" {
			t.Errorf("the last is %q with %v", last.Payload, last.Metadata)
		}
		stop := errors.New("enough")
		if err := kafka.ReadPartition(t.Context(), cfg, topic, 1, func(*message.Message) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestReadPartitionOfATopicThatIsNotThere(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		none := func(*message.Message) error { return nil }
		if err := kafka.ReadPartition(t.Context(), cfg, unique("missing"), 0, none); !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("error is %v, want ErrNoTopic", err)
		}
		if _, err := kafka.LastRecord(t.Context(), cfg, unique("missing"), 0); !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("error is %v, want ErrNoTopic", err)
		}
	})
	nowhere := kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "bus-test"}
	if _, err := kafka.LastRecord(t.Context(), nowhere, "any", 0); !errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("error is %v, want ErrUnreachable", err)
	}
}

// The last record is found behind markers of transactions, however many there
// are, and however large it is.
func TestLastRecord(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		spec := oona.TopicSpec{Name: unique("last"), Partitions: 1, MaxMessageBytes: oona.MaxRollupBytes}
		if _, err := kafka.ApplyTopics(t.Context(), cfg, []oona.TopicSpec{spec}); err != nil {
			t.Fatal(err)
		}
		last := func() *message.Message {
			t.Helper()
			msg, err := kafka.LastRecord(t.Context(), cfg, spec.Name, 0)
			if err != nil {
				t.Fatal(err)
			}
			return msg
		}
		if msg := last(); msg != nil {
			t.Errorf("an empty partition has %v", msg)
		}
		p := newPublisher(t, cfg, kafka.PublisherOptions{MaxMessageBytes: oona.MaxRollupBytes})
		publish(t, p, spec.Name, numbered(0, 100, 0)...)
		if msg := last(); string(msg.Payload) != "99" || position(t, msg).Offset != 99 {
			t.Errorf("the last is %q, %v", msg.Payload, msg.Metadata)
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), 12<<20/16)
		publish(t, p, spec.Name, message.NewMessage("", big))
		if msg := last(); !bytes.Equal(msg.Payload, big) {
			t.Errorf("the last has %d bytes, want %d", len(msg.Payload), len(big))
		}
		transactions(t, cfg, spec.Name, 5)
		if msg := last(); string(msg.Payload) != "in a transaction" || position(t, msg).Offset != 101+2*4 {
			t.Errorf("behind markers the last is %.20q, %v", msg.Payload, msg.Metadata)
		}
	})
}

// transactions writes n records, each in a transaction, and waits for its marker.
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
	before, err := kafka.HighWater(t.Context(), cfg, topic)
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
			ends, err := kafka.HighWater(t.Context(), cfg, topic)
			return err == nil && ends[topic][0] == before[topic][0]+2*int64(i+1)
		})
	}
}

// RecordAt has the record of an offset, and none where there is none.
func TestRecordAt(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 4}); err != nil {
			t.Fatal(err)
		}
		for offset, want := range map[int64]string{0: "", 3: "", 4: "4", 9: "9", 10: "", 1000: ""} {
			msg, err := kafka.RecordAt(t.Context(), cfg, topic, 0, offset)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if msg != nil {
				got = string(msg.Payload)
			}
			if got != want {
				t.Errorf("at offset %d there is %q, want %q; empty is nothing", offset, got, want)
			}
		}
		if _, err := kafka.RecordAt(t.Context(), cfg, unique("nowhere"), 0, 0); !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("of a topic that does not exist: %v", err)
		}
	})
}
