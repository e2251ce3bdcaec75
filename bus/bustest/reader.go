package bustest

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

var readerCases = []testCase{
	{"ReaderRanges", readerRanges},
	{"ReaderAfterTrim", readerAfterTrim},
	{"ReaderBehindTheEnd", readerBehindTheEnd},
	{"ReaderIsOvertaken", readerIsOvertaken},
	{"ReaderFromATime", readerFromATime},
	{"ReaderRedelivers", readerRedelivers},
	{"PayloadsAreNotShared", payloadsAreNotShared},
	{"ReaderEnds", readerEnds},
	{"ReaderOfAnUnknownTopic", readerOfAnUnknownTopic},
}

func checkRanges(t *trial, got []bus.Range, want ...[2]int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d ranges, want %d", len(got), len(want))
	}
	for i, w := range want {
		if r := got[i]; r != (bus.Range{Partition: int32(i), From: w[0], End: w[1]}) {
			t.Errorf("%+v; want %d to %d", r, w[0], w[1])
		}
	}
}

// A reader says where it began and where the log ended then, and reads beyond that end.
func readerRanges(t *trial) {
	topic := t.partitions(3)
	t.fill(topic, 0, 10)
	t.fill(topic, 1, 5)
	reader := t.reader(time.Time{})
	if ranges := reader.Ranges(topic); ranges != nil {
		t.Errorf("before Subscribe: %+v", ranges)
	}
	messages := t.subscribe(reader, topic)
	checkRanges(t, reader.Ranges(topic), [2]int64{0, 10}, [2]int64{0, 5}, [2]int64{0, 0})
	var due [3]int64
	for range 15 {
		msg := t.next(messages)
		at := t.position(msg)
		if at.Topic != topic || at.Consumer != nil || at.Offset != due[at.Partition] || string(msg.Payload) != strconv.FormatInt(at.Offset, 10) {
			t.Errorf("%s at %+v, want offset %d", msg.Payload, at, due[at.Partition])
		}
		due[at.Partition]++
		msg.Ack()
	}
	t.publish(t.publisher(bus.PublisherOptions{}), topic, directed("new", 2))
	if got := t.take(messages, 1); got[0] != "new" {
		t.Errorf("%q", got)
	}
	if _, err := reader.Subscribe(t.Context(), topic); err == nil {
		t.Error("the same topic was subscribed to twice")
	}
}

// A reader begins with the oldest record that was not deleted.
func readerAfterTrim(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic := t.partitions(2)
	t.fill(topic, 0, 10)
	t.fill(topic, 1, 10)
	t.Faults.Trim(t.T, topic, 0, 4)
	t.Faults.Trim(t.T, topic, 1, 10)
	reader := t.reader(time.Time{})
	messages := t.subscribe(reader, topic)
	checkRanges(t, reader.Ranges(topic), [2]int64{4, 10}, [2]int64{10, 10})
	if got := t.take(messages, 6); got[0] != "4" || got[5] != "9" {
		t.Errorf("%q", got)
	}
}

// A reader that the retention has overtaken continues with the oldest record that is left.
// It may have fetched some of the others before.
func readerIsOvertaken(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic := t.partitions(1)
	t.fill(topic, 0, 3)
	messages := t.subscribe(t.reader(time.Time{}), topic)
	first := t.next(messages)
	t.fill(topic, 0, 7)
	t.Faults.Trim(t.T, topic, 0, 6)
	first.Ack()
	for last := t.position(first).Offset; last < 9; {
		msg := t.next(messages)
		offset := t.position(msg).Offset
		if offset <= last || offset > max(last+1, 6) {
			t.Errorf("offset %d comes after %d, and the log begins at 6", offset, last)
		}
		last = offset
		msg.Ack()
	}
}

// Each partition begins with its first record at or after the time, or at its end.
func readerFromATime(t *trial) {
	topic := t.partitions(3)
	p := t.publisher(bus.PublisherOptions{})
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(partition int32, minute int) *message.Message {
		when := noon.Add(time.Duration(minute) * time.Minute)
		return bus.NewMessage([]byte(strconv.Itoa(minute)), bus.Target{Partition: partition, Directed: true, Time: oona.MicrosOf(when)})
	}
	for minute := range 10 { // one call each, as a bus may only know the times of batches
		t.publish(p, topic, at(0, minute))
		if minute < 5 {
			t.publish(p, topic, at(1, minute))
		}
	}
	reader := t.reader(noon.Add(7 * time.Minute))
	messages := t.subscribe(reader, topic)
	checkRanges(t, reader.Ranges(topic), [2]int64{7, 10}, [2]int64{5, 5}, [2]int64{0, 0})
	if got := t.take(messages, 3); !slices.Equal(got, []string{"7", "8", "9"}) {
		t.Errorf("%q", got)
	}
	t.publish(p, topic, directed("late", 1))
	if got := t.take(messages, 1); got[0] != "late" {
		t.Errorf("%q", got)
	}
}

// A message that is nacked is delivered again, before the next one.
func readerRedelivers(t *trial) {
	topic := t.partitions(1)
	t.fill(topic, 0, 3)
	messages := t.subscribe(t.reader(time.Time{}), topic)
	t.take(messages, 1)
	for range 12 { // a bus must not give up after a few
		msg := t.next(messages)
		if at := t.position(msg); string(msg.Payload) != "1" || at.Offset != 1 {
			t.Fatalf("%q came at %+v", msg.Payload, at)
		}
		msg.Nack()
	}
	if got := t.take(messages, 2); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%q", got)
	}
}

// A publisher or a reader that changes its message does not change the log.
func payloadsAreNotShared(t *trial) {
	topic := t.partitions(1)
	key := []byte("key")
	written := bus.NewMessage([]byte("payload"), bus.Target{Key: key, Directed: true})
	written.Metadata["header"] = "value"
	t.publish(t.publisher(bus.PublisherOptions{}), topic, written)
	change := func(msg *message.Message, key []byte) {
		copy(msg.Payload, "changed")
		msg.Metadata["header"] = "changed"
		copy(key, "new")
	}
	change(written, key)
	for range 2 {
		for _, s := range []message.Subscriber{t.reader(time.Time{}), t.member(unique("group"), newOwner())} {
			msg := t.next(t.subscribe(s, topic))
			at := t.position(msg)
			if string(msg.Payload) != "payload" || msg.Metadata["header"] != "value" || string(at.Key) != "key" {
				t.Errorf("%q with %q, key %q", msg.Payload, msg.Metadata, at.Key)
			}
			change(msg, at.Key)
			msg.Ack()
		}
		msg, err := bus.RecordAt(t.Context(), t.Bus, topic, 0, 0)
		if err != nil || msg == nil {
			t.Fatalf("%v, %v", msg, err)
		}
		at := t.position(msg)
		if string(msg.Payload) != "payload" || msg.Metadata["header"] != "value" || string(at.Key) != "key" {
			t.Errorf("Read: %q with %q, key %q", msg.Payload, msg.Metadata, at.Key)
		}
		change(msg, at.Key)
	}
}

// Close does not wait for a handler.
func readerEnds(t *trial) {
	topic := t.partitions(2)
	t.fill(topic, 0, 3)
	reader := t.newReader(time.Time{})
	messages := t.subscribe(reader, topic)
	t.next(messages) // without ack or nack
	if err := errors.Join(reader.Close(), reader.Close()); err != nil {
		t.Error(err)
	}
	if msg, open := <-messages; open {
		t.Errorf("%s came after Close", msg.Payload)
	}
	if _, err := reader.Subscribe(t.Context(), topic+".other"); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func readerOfAnUnknownTopic(t *trial) {
	reader, topic := t.reader(time.Time{}), unique("unknown")
	if _, err := reader.Subscribe(t.Context(), topic); !errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("%v, want bus.ErrNoTopic", err)
	}
	if ranges := reader.Ranges(topic); ranges != nil {
		t.Errorf("%+v", ranges)
	}
}

// A reader whose next record is beyond the end of a log that has lost its tail continues
// with the oldest record, as the log does not have what it would read next.
func readerBehindTheEnd(t *trial) {
	t.need("LoseTail", t.Faults.LoseTail)
	topic := t.partitions(1)
	t.fill(topic, 0, 10)
	messages := t.subscribe(t.reader(time.Time{}), topic)
	t.take(messages, 10)
	t.Faults.LoseTail(t.T, topic, 0, 3)
	if again := t.take(messages, 3); !slices.Equal(again, []string{"0", "1", "2"}) {
		t.Errorf("it continues with %q", again)
	}
}
