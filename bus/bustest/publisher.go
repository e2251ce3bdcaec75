package bustest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

var publisherCases = []testCase{
	{"KeysDecideThePartition", keysDecideThePartition},
	{"OrderWithinAPartition", orderWithinAPartition},
	{"OrderAcrossRetries", orderAcrossRetries},
	{"Headers", headers},
	{"WritersTimes", writersTimes},
	{"AppendTimes", appendTimes},
	{"TooLarge", tooLarge},
	{"TooLargeForTheTopic", tooLargeForTheTopic},
	{"PartOfACallFails", partOfACallFails},
	{"BadTarget", badTarget},
	{"NothingBehindAFailure", nothingBehindAFailure},
	{"PartitionsDoNotWait", partitionsDoNotWait},
	{"PublishEndsWithItsContext", publishEndsWithItsContext},
	{"ClosedPublisher", closedPublisher},
	{"CloseEndsWaiting", closeEndsWaiting},
}

// A call has messages with a key, with a partition, and with neither. On every bus, a key
// goes to the partition that murmur2 gives. The hashes are from the tests
// of its Java implementation.
func keysDecideThePartition(t *trial) {
	const partitions = 12
	topic := t.partitions(partitions)
	hashes := map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	}
	messages := []*message.Message{
		bus.NewMessage([]byte("directed"), bus.Target{Key: []byte("foobar"), Partition: 5, Directed: true}),
		bus.NewMessage([]byte("hashed"), bus.Target{Key: []byte("foobar"), Partition: bus.Hash([]byte("21")), Hashed: true}),
		unkeyed("neither"),
		keyed("empty key", ""),
	}
	for key := range hashes {
		messages = append(messages, keyed("keyed", key))
	}
	t.publish(t.publisher(bus.PublisherOptions{}), topic, messages...)
	for _, msg := range t.read(topic, len(messages)) {
		at := t.position(msg)
		switch string(msg.Payload) {
		case "directed":
			if string(at.Key) != "foobar" || at.Partition != 5 {
				t.Errorf("directed: key %q, partition %d", at.Key, at.Partition)
			}
		case "hashed":
			if want := (hashes["21"] & 0x7fffffff) % partitions; string(at.Key) != "foobar" || at.Partition != want {
				t.Errorf("hashed: key %q, partition %d, want %d", at.Key, at.Partition, want)
			}
		case "keyed":
			if want := (hashes[string(at.Key)] & 0x7fffffff) % partitions; at.Partition != want {
				t.Errorf("key %q: partition %d, want %d", at.Key, at.Partition, want)
			}
		case "empty key":
			if at.Key == nil || len(at.Key) > 0 {
				t.Errorf("an empty key came back as %#v", at.Key)
			}
		case "neither":
			if at.Key != nil {
				t.Errorf("no key came back as %#v", at.Key)
			}
		}
	}
}

// Offsets ascend by one from 0, in the order of publishing.
func orderWithinAPartition(t *trial) {
	topic := t.partitions(2)
	p := t.publisher(bus.PublisherOptions{})
	for i := range 20 {
		t.publish(p, topic, numbered(100*i, 100*(i+1), 1)...)
	}
	for i, msg := range t.read(topic, 2000) {
		if at := t.position(msg); string(msg.Payload) != strconv.Itoa(i) || at.Offset != int64(i) || at.Partition != 1 || at.Topic != topic {
			t.Fatalf("message %d is %s at %+v", i, msg.Payload, at)
		}
	}
	if ends := t.ends(topic); !slices.Equal(ends, []int64{0, 2000}) {
		t.Errorf("the log ends at %v", ends)
	}
}

// Batches that are tried again keep their order, within a call and from call to call.
func orderAcrossRetries(t *trial) {
	t.need("Falter", t.Faults.Falter)
	topic := t.partitions(1)
	p := t.publisher(bus.PublisherOptions{})
	const calls, perCall = 4, 25
	for i := range calls {
		t.Faults.Falter(t.T, topic, 0, i)
		t.publish(p, topic, numbered(perCall*i, perCall*(i+1), 0)...)
	}
	for i, msg := range t.read(topic, calls*perCall) {
		if string(msg.Payload) != strconv.Itoa(i) {
			t.Fatalf("message %d is %s", i, msg.Payload)
		}
	}
}

// The metadata of a message are its headers, whatever their names.
func headers(t *trial) {
	topic := t.partitions(1)
	p := t.publisher(bus.PublisherOptions{})
	want := message.Metadata{
		"plain":        "value",
		"empty":        "",
		"bytes":        "\x00\xff\n",
		"$offset":      "from outside",
		"$$key":        "from outside",
		"with $ in it": "x",
	}
	msg := unkeyed("x")
	maps.Copy(msg.Metadata, want)
	t.publish(p, topic, msg)
	once := t.read(topic, 1)[0]
	t.publish(p, topic, once.Copy(), unkeyed("none"))
	got := t.read(topic, 3)
	for i, want := range []message.Metadata{want, want, {}} {
		if !maps.Equal(got[i].Metadata, want) {
			t.Errorf("message %d: the headers are %q, want %q", i, got[i].Metadata, want)
		}
	}
}

// In a topic without append times, the times of the writers are kept to the millisecond.
// The default is the time of publishing.
func writersTimes(t *trial) {
	topic := t.partitions(1)
	before := time.Now().Truncate(time.Millisecond)
	t.publish(t.publisher(bus.PublisherOptions{}), topic,
		bus.NewMessage([]byte("given"), bus.Target{Time: 1700000000123456}), unkeyed("now"))
	messages := t.read(topic, 2)
	if got := t.position(messages[0]).Appended; got/1000 != 1700000000123 {
		t.Errorf("the given time came back as %d", got)
	}
	if got := t.position(messages[1]).Appended.Time(); got.Before(before) || got.After(time.Now()) {
		t.Errorf("the default time is %s", got)
	}
}

// In a topic with append times, the times of the writers do not count.
func appendTimes(t *trial) {
	topic := t.topic(oona.TopicSpec{Partitions: 1, AppendTime: true})
	before := time.Now().Truncate(time.Millisecond)
	p := t.publisher(bus.PublisherOptions{})
	for n := range 3 {
		for range n {
			t.publish(p, topic, bus.NewMessage([]byte("old"), bus.Target{Time: 1_000_000}))
		}
	}
	for i, msg := range t.read(topic, 3) {
		if at := t.position(msg).Appended.Time(); at.Before(before) || at.After(time.Now()) {
			t.Errorf("message %d was appended at %s, not since %s", i, at, before)
		}
	}
}

// The error names the message that is too large, and nothing of the call is appended.
func tooLarge(t *trial) {
	topic := t.partitions(1)
	p := t.publisher(bus.PublisherOptions{MaxMessageBytes: 2000})
	large := unkeyed(strings.Repeat("x", 1500))
	large.Metadata["header"] = strings.Repeat("y", 500)
	err := p.Publish(t.Context(), topic, unkeyed("fits"), large)
	if !errors.Is(err, bus.ErrTooLarge) || !slices.Equal(failed(err), []int{1}) {
		t.Errorf("%v", err)
	}
	if ends := t.ends(topic); ends[0] != 0 {
		t.Errorf("%d messages of the call were appended", ends[0])
	}
	t.publish(p, topic, unkeyed("fits"))
}

// A topic refuses a message that is too large for it, although the publisher has a
// greater limit.
func tooLargeForTheTopic(t *trial) {
	topic := t.topic(oona.TopicSpec{Partitions: 1, MaxMessageBytes: 1000})
	p := t.publisher(bus.PublisherOptions{})
	err := p.Publish(t.Context(), topic, unkeyed(strings.Repeat("x", 1500)))
	if !errors.Is(err, bus.ErrTooLarge) || !slices.Equal(failed(err), []int{0}) {
		t.Errorf("%v", err)
	}
	t.publish(p, topic, unkeyed("fits"))
}

// A message for a partition that does not exist fails. The others do not.
func partOfACallFails(t *trial) {
	topic := t.partitions(2)
	err := t.publisher(bus.PublisherOptions{}).Publish(t.Context(), topic, directed("a", 0), directed("b", 7), directed("c", 1))
	if err == nil || !slices.Equal(failed(err), []int{1}) || errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if ends := t.ends(topic); !slices.Equal(ends, []int64{1, 1}) {
		t.Errorf("the log ends at %v", ends)
	}
}

func badTarget(t *trial) {
	topic := t.partitions(1)
	err := t.publisher(bus.PublisherOptions{}).Publish(t.Context(), topic, unkeyed("good"), directed("bad", -1))
	var field *oona.FieldError
	if !errors.As(err, &field) || field.Field != "partition" {
		t.Errorf("%v", err)
	}
	if ends := t.ends(topic); ends[0] != 0 {
		t.Errorf("%d messages of the call were appended", ends[0])
	}
}

// After a message that has failed, no other message of the call is appended to its
// partition. Other partitions and the next call are not affected.
func nothingBehindAFailure(t *trial) {
	t.need("Refuse", t.Faults.Refuse)
	topic := t.partitions(2)
	p := t.publisher(bus.PublisherOptions{})
	t.Faults.Refuse(t.T, topic, 0)
	err := p.Publish(t.Context(), topic, slices.Concat(numbered(0, 5, 0), numbered(0, 3, 1))...)
	if !slices.Equal(failed(err), []int{0, 1, 2, 3, 4}) {
		t.Errorf("failed have %v: %v", failed(err), err)
	}
	if ends := t.ends(topic); !slices.Equal(ends, []int64{0, 3}) {
		t.Errorf("the log ends at %v", ends)
	}
	t.publish(p, topic, numbered(0, 5, 0)...)
	if ends := t.ends(topic); ends[0] != 5 {
		t.Errorf("the log ends at %v", ends)
	}
}

// Partitions do not wait for one another, within a call and between calls.
func partitionsDoNotWait(t *trial) {
	t.need("Hold", t.Faults.Hold)
	topic := t.partitions(3)
	p := t.publisher(bus.PublisherOptions{})
	_, release := t.Faults.Hold(t.T, topic, 0)
	whole := make(chan error, 1)
	go func() {
		whole <- p.Publish(context.Background(), topic, directed("a", 0), directed("b", 1))
	}()
	t.eventually("the other partition of the call takes its message", func() bool { return t.ends(topic)[1] == 1 })
	for _, partition := range []int32{1, 2} {
		t.publish(p, topic, directed("c", partition))
	}
	if len(whole) > 0 {
		t.Errorf("the call has ended before its last message: %v", <-whole)
	}
	release()
	if err := <-whole; err != nil {
		t.Error(err)
	}
	if ends := t.ends(topic); !slices.Equal(ends, []int64{1, 2, 1}) {
		t.Errorf("the log ends at %v", ends)
	}
}

// When the context ends, messages that wait fail. They are never appended.
func publishEndsWithItsContext(t *trial) {
	t.need("Hold", t.Faults.Hold)
	topic := t.partitions(1)
	p := t.publisher(bus.PublisherOptions{})
	waiting, release := t.Faults.Hold(t.T, topic, 0)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- p.Publish(context.Background(), topic, directed("0", 0)) }()
	t.eventually("one call is held", func() bool { return waiting() == 1 })
	go func() { second <- p.Publish(ctx, topic, directed("1", 0)) }()
	time.Sleep(100 * time.Millisecond) // it waits now, and has not only found that its context had ended
	if len(second) > 0 {
		t.Fatalf("the second call does not wait: %v", <-second)
	}
	cancel()
	select {
	case err := <-second:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(longest):
		t.Fatal("what waits does not end with its context")
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	t.publish(p, topic, directed("2", 0))
	for i, msg := range t.read(topic, 2) {
		if want := []string{"0", "2"}[i]; string(msg.Payload) != want {
			t.Errorf("message %d is %s, want %s", i, msg.Payload, want)
		}
	}
}

func closedPublisher(t *trial) {
	topic := t.partitions(1)
	p := t.newPublisher(t.T, bus.PublisherOptions{})
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if err := p.Publish(t.Context(), topic, unkeyed("x")); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// Close makes messages that wait fail, however long they might wait.
func closeEndsWaiting(t *trial) {
	t.need("Hold", t.Faults.Hold)
	topic := t.partitions(1)
	p := t.newPublisher(t.T, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	waiting, _ := t.Faults.Hold(t.T, topic, 0)
	failed := make(chan error, 1)
	go func() { failed <- p.Publish(context.Background(), topic, directed("x", 0)) }()
	t.eventually("the call is held", func() bool { return waiting() == 1 })
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
}
