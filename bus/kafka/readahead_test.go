package kafka_test

import (
	"crypto/rand"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// While a handler has a record, only a small part of the log after it is in memory. The limit is in
// bytes, not in records.
func TestReadAheadIsBounded(t *testing.T) {
	// Not in parallel: other tests use memory, too.
	cfg := kafka.Patient(kafka.Config{Brokers: startEmbedded(t, embedded.Options{}).Addrs, ClientID: "test"})
	const partitions, records, size = 4, 60, 500_000
	topic := makeTopic(t, cfg, partitions, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	for partition := range partitions {
		for range records {
			msg := numbered(0, 1, partition)
			msg[0].Payload = make(message.Payload, size)
			_, _ = rand.Read(msg[0].Payload) // it never fails
			publish(t, p, topic, msg...)
		}
	}
	idle := liveHeap()
	o := newOwner()
	s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: unique("group"), ReadAhead: 1 << 20}, o)
	if err != nil {
		t.Fatal(err)
	}
	messages := subscribe(t, s, topic)
	held := make([]*message.Message, partitions)
	for i := range held {
		held[i] = next(t, messages)
	}
	most := int64(0)
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		most = max(most, liveHeap()-idle)
	}
	t.Logf("%d KiB are in use", most>>10)
	if most > partitions*5<<20 {
		t.Errorf("%d KiB of %d partitions are in use, of %d that they hold", most>>10, partitions, partitions*records*size>>10)
	}
	for n := 0; n < partitions*records; n++ { // no record is lost
		if n < partitions {
			held[n].Ack()
			continue
		}
		next(t, messages).Ack()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestReaderReadsAheadAsToldTo tests the limit for readers.
func TestReaderReadsAheadAsToldTo(t *testing.T) {
	// Not in parallel: other tests use memory, too.
	cfg := kafka.Patient(kafka.Config{Brokers: startEmbedded(t, embedded.Options{}).Addrs, ClientID: "test"})
	const partitions, records, size = 2, 40, 500_000
	topic := makeTopic(t, cfg, partitions, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	for partition := range partitions {
		for range records {
			msg := numbered(0, 1, partition)
			msg[0].Payload = make(message.Payload, size)
			_, _ = rand.Read(msg[0].Payload) // it never fails
			publish(t, p, topic, msg...)
		}
	}
	idle := liveHeap()
	messages := subscribe(t, newReader(t, cfg, bus.ReaderOptions{ReadAhead: 1 << 20}), topic)
	first := next(t, messages)
	most := int64(0)
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		most = max(most, liveHeap()-idle)
	}
	if most > partitions*5<<20 {
		t.Errorf("%d KiB of %d partitions are in use, of %d that they hold", most>>10, partitions, partitions*records*size>>10)
	}
	first.Ack()
	for range partitions*records - 1 { // no record is lost
		next(t, messages).Ack()
	}
}

// filled returns a topic with some records of 200 kB in each partition.
func filled(t *testing.T, cfg kafka.Config, partitions, records int) (topic string) {
	t.Helper()
	topic = makeTopic(t, cfg, int32(partitions), false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	for range records {
		var all []*message.Message
		for partition := range partitions {
			msg := numbered(0, 1, partition)
			msg[0].Payload = make(message.Payload, filledSize)
			_, _ = rand.Read(msg[0].Payload) // it never fails
			all = append(all, msg...)
		}
		publish(t, p, topic, all...)
	}
	return topic
}

const filledSize = 200_000

// The bytes that all partitions together have fetched are bounded even if a record is larger than the
// share of its partition. When handlers continue, each record is handed out.
func TestReadAheadOfAllPartitionsIsBounded(t *testing.T) {
	// Not in parallel: other tests use memory, too.
	cfg := kafka.Patient(kafka.Config{Brokers: startEmbedded(t, embedded.Options{}).Addrs, ClientID: "test"})
	const partitions, records, limit = 64, 4, 4 << 20
	topic := filled(t, cfg, partitions, records)
	idle := liveHeap()
	s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: unique("group"), ReadAhead: 1 << 20, ReadAheadAll: limit}, newOwner())
	if err != nil {
		t.Fatal(err)
	}
	messages := subscribe(t, s, topic)
	held := make([]*message.Message, limit/filledSize/4) // at least so many partitions can hold a record
	for i := range held {
		held[i] = next(t, messages)
	}
	most := int64(0)
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		for more := true; more; {
			select {
			case msg := <-messages:
				held = append(held, msg)
			default:
				more = false
			}
		}
		most = max(most, liveHeap()-idle)
	}
	t.Logf("%d KiB are in use, %d of %d partitions have handed out a record", most>>10, len(held), partitions)
	if most > 2*limit || len(held) == partitions {
		t.Errorf("%d KiB are in use by %d of %d partitions, want at most %d", most>>10, len(held), partitions, 2*limit>>10)
	}
	nexts := make(map[int32]int64)
	for n := range partitions * records {
		var msg *message.Message
		if n < len(held) {
			msg = held[n]
		} else {
			msg = next(t, messages)
		}
		at := position(t, msg)
		if at.Offset != nexts[at.Partition] {
			t.Fatalf("offset %d of partition %d comes, want %d", at.Offset, at.Partition, nexts[at.Partition])
		}
		nexts[at.Partition]++
		msg.Ack()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A reader fetches less of each partition if a topic has many.
func TestReaderDividesWhatItReadsAhead(t *testing.T) {
	// Not in parallel: other tests use memory, too.
	cfg := kafka.Patient(kafka.Config{Brokers: startEmbedded(t, embedded.Options{}).Addrs, ClientID: "test"})
	const partitions, records, limit = 16, 16, 8 << 20
	topic := filled(t, cfg, partitions, records)
	idle := liveHeap()
	messages := subscribe(t, newReader(t, cfg, bus.ReaderOptions{ReadAheadAll: limit}), topic)
	first := next(t, messages)
	most := int64(0)
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		most = max(most, liveHeap()-idle)
	}
	t.Logf("%d KiB are in use", most>>10)
	if most > 2*limit {
		t.Errorf("%d KiB are in use, of %d on the topic", most>>10, partitions*records*filledSize>>10)
	}
	first.Ack()
	for range partitions*records - 1 { // no record is lost
		next(t, messages).Ack()
	}
}

// liveHeap returns the size of live objects after a collection.
func liveHeap() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
