package ingest

import (
	"context"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
)

// testBus is a bus in memory with the topics of ingest, and a publisher to it
// that counts.
type testBus struct {
	*memory.Bus
	publisher bus.Publisher
	// before is called at the beginning of each Publish. If it returns an error,
	// nothing is published. It is for faults that bus/memory does not have. It must not
	// be changed during a Publish.
	before func(topic string, messages []*message.Message) error

	mu     sync.Mutex
	calls  map[string]int // by topic
	failed map[string]int
}

// newBus returns a bus. Its topics of frames and of dead letters have one partition, and
// its raw topic has five.
func newBus(tb testing.TB, changes ...func(*oona.TopicSpec)) *testBus {
	tb.Helper()
	specs := append(rawTopics.Specs(1), rawTopics.RawSpecs(5)...)
	for i := range specs {
		if specs[i].Name == rawTopics.SeedRaw {
			specs[i].MaxMessageBytes = 16 << 20
		}
		for _, change := range changes {
			change(&specs[i])
		}
	}
	b := memory.New()
	if _, err := b.Apply(tb.Context(), specs); err != nil {
		tb.Fatal(err)
	}
	publisher, err := b.Publisher(bus.PublisherOptions{Pin: rawTopics.SeedMetrics, MaxMessageBytes: 64 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	return &testBus{Bus: b, publisher: publisher, calls: make(map[string]int), failed: make(map[string]int)}
}

// manyPartitions gives the raw topic 64 partitions, so that little memory is reserved
// for each.
func manyPartitions(spec *oona.TopicSpec) {
	if spec.Name == rawTopics.SeedRaw {
		spec.Partitions = 64
	}
}

// limited sets the limit of the topic of frames for a record.
func limited(bytes int) func(*oona.TopicSpec) {
	return func(spec *oona.TopicSpec) {
		if spec.Name == rawTopics.SeedMetrics {
			spec.MaxMessageBytes = bytes
		}
	}
}

func (b *testBus) Close() error { return b.publisher.Close() }

func (b *testBus) Publish(ctx context.Context, topic string, messages ...*message.Message) (err error) {
	if len(messages) == 0 {
		return nil
	}
	b.mu.Lock()
	b.calls[topic]++
	b.mu.Unlock()
	if b.before != nil {
		err = b.before(topic, messages)
	}
	if err == nil {
		err = b.publisher.Publish(ctx, topic, messages...)
	}
	if err != nil {
		b.mu.Lock()
		b.failed[topic]++
		b.mu.Unlock()
	}
	return err
}

// count returns how often messages were published to a topic, and how many of
// these calls have failed.
func (b *testBus) count(topic string) (calls, failed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[topic], b.failed[topic]
}

// on returns the records of a topic with one partition.
func (b *testBus) on(tb testing.TB, topic string) (records []*message.Message) {
	tb.Helper()
	extents, err := b.Extents(tb.Context(), topic)
	if err == nil {
		extent := extents[topic][0]
		err = b.Read(tb.Context(), topic, bus.Range{From: extent.Start, End: extent.End}, func(record *message.Message) error {
			records = append(records, record)
			return nil
		})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return records
}

// published returns how often frames were published, and the frames on the bus.
func (b *testBus) published(tb testing.TB) (calls int, messages []*message.Message) {
	tb.Helper()
	calls, _ = b.count(rawTopics.SeedMetrics)
	return calls, b.on(tb, rawTopics.SeedMetrics)
}
