package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
)

// refuser is a broker that refuses some requests to produce.
type refuser struct {
	*kfake.Cluster
	mu      sync.Mutex
	refuse  []*kerr.Error // of the next requests; nil: takes it
	refused int
}

func startRefuser(t *testing.T) (*refuser, bus.Config) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	r := &refuser{Cluster: cluster}
	cluster.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return r.answer(request.(*kmsg.ProduceRequest))
	})
	return r, bus.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"}
}

func (r *refuser) script(refuse ...*kerr.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.refused = refuse, 0
}

func (r *refuser) answer(request *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refuse) == 0 {
		return nil, nil, false
	}
	next := r.refuse[0]
	r.refuse = r.refuse[1:]
	if next == nil {
		return nil, nil, false
	}
	r.refused++
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range request.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, next.Code
			topic.Partitions = append(topic.Partitions, partition)
		}
		response.Topics = append(response.Topics, topic)
	}
	return response, nil, true
}

// A batch that fails for good keeps everything behind it in its partition off
// the bus, wherever in the call it is; the other partition goes on, and the call
// that is tried again brings the rest in order.
func TestNothingOvertakesAFailedBatch(t *testing.T) {
	const count = 3000 // with 1 kB each, three batches
	for _, before := range []int{0, 1, 2} {
		t.Run(strconv.Itoa(before), func(t *testing.T) {
			broker, cfg := startRefuser(t)
			topic := makeTopic(t, cfg, 2, false)
			opts := bus.RollupOptions()
			opts.Compression = "none"
			p := newPublisher(t, cfg, opts)
			messages := numbered(0, count, 0)
			for _, msg := range messages {
				msg.Payload = append(msg.Payload, make([]byte, 1000)...)
			}
			broker.script(append(make([]*kerr.Error, before), kerr.TopicAuthorizationFailed)...)
			err := p.Publish(topic, append(slices.Clone(messages), numbered(0, 5, 1)...)...)
			var failed *bus.PublishError
			if !errors.As(err, &failed) || !errors.Is(err, sarama.ErrTopicAuthorizationFailed) || broker.refused != 1 {
				t.Fatalf("%v; %d requests were refused", err, broker.refused)
			}
			ends, err := bus.HighWater(t.Context(), cfg, topic)
			if err != nil {
				t.Fatal(err)
			}
			written := int(ends[topic][0])
			if (written > 0) != (before > 0) || ends[topic][1] != 5 || len(failed.Failed) != count-written {
				t.Fatalf("written are %v, %d have failed", ends[topic], len(failed.Failed))
			}
			for i, f := range failed.Failed {
				if f.Index != written+i {
					t.Fatalf("message %d has failed; %d were written", f.Index, written)
				}
			}
			publish(t, p, topic, messages...)
			highest, read := -1, 0 // as a reader of rollups, that drops what is not above the highest
			for _, msg := range readAll(t, cfg, topic, written+count+5) {
				if metaInt(t, msg, oona.MetaPartition) != 0 {
					continue
				}
				number, err := strconv.Atoi(string(msg.Payload[:len(msg.Payload)-1000]))
				if err != nil {
					t.Fatal(err)
				}
				if number > highest {
					highest = number
					read++
				}
			}
			if read != count {
				t.Errorf("a reader has %d of %d", read, count)
			}
		})
	}
}

// What passes by itself is waited for.
func TestOrderedPublisherTriesAgain(t *testing.T) {
	broker, cfg := startRefuser(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.RollupOptions())
	broker.script(kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.RequestTimedOut)
	publish(t, p, topic, newMessage("x", oona.MetaKey, "key", "header", "1"))
	if broker.refused != 3 {
		t.Errorf("%d requests were refused", broker.refused)
	}
	msg := readAll(t, cfg, topic, 1)[0]
	if string(msg.Payload) != "x" || msg.Metadata[oona.MetaKey] != "key" || msg.Metadata["header"] != "1" {
		t.Errorf("%q %v came", msg.Payload, msg.Metadata)
	}
}

// Who publishes rollups hears within seconds that the bus refuses them, and not
// only once its patience of an hour is over.
func TestRefusedRollupsAreHeardOfSoon(t *testing.T) {
	broker, cfg := startRefuser(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.RollupOptions())
	broker.script(slices.Repeat([]*kerr.Error{kerr.NotEnoughReplicas}, 100_000)...)
	failed := make(chan error, 1)
	go func() { failed <- p.Publish(topic, newMessage("x")) }()
	select {
	case err := <-failed:
		var refused *bus.PublishError
		if !errors.As(err, &refused) || !errors.Is(err, sarama.ErrNotEnoughReplicas) {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatalf("nothing was heard in %s", patience)
	}
	if broker.refused < 2 {
		t.Errorf("%d requests were refused, want it tried again", broker.refused)
	}
	broker.script()
	publish(t, p, topic, newMessage("y"))
}

// What the tests of publishers say of records holds of ordered ones: keys,
// headers, times, sizes, partitions.
func TestOrderedPublisherPublishesTheSame(t *testing.T) {
	brokers(t, func(t *testing.T, cfg bus.Config) {
		topic := makeTopic(t, cfg, 5, false)
		for _, ordered := range []bool{false, true} {
			p := newPublisher(t, cfg, bus.PublisherOptions{Ordered: ordered, Patience: 10 * time.Second, Compression: "lz4"})
			publish(t, p, topic,
				newMessage("keyed", oona.MetaKey, "foobar", "header", "1", "$$offset", "from outside"),
				newMessage("directed", oona.MetaToPartition, "3", oona.MetaTimestamp, "1700000000123000"),
				newMessage("directed later", oona.MetaToPartition, "3", oona.MetaTimestamp, "1700000009123000"),
				newMessage("directed earlier", oona.MetaToPartition, "3", oona.MetaTimestamp, "1600000000123000"),
				newMessage("", oona.MetaToPartition, "4"))
		}
		seen := make(map[string]string)
		for _, msg := range readAll(t, cfg, topic, 10) {
			name := string(msg.Payload)
			delete(msg.Metadata, oona.MetaOffset)
			delete(msg.Metadata, oona.MetaClaim)
			if name == "keyed" || name == "" { // at what time does not matter
				delete(msg.Metadata, oona.MetaTimestamp)
			}
			text := fmt.Sprint(msg.Metadata)
			if before, again := seen[name]; again && before != text {
				t.Errorf("%q came as %s and as %s", name, before, text)
			}
			seen[name] = text
		}
		if len(seen) != 5 {
			t.Errorf("%v came", seen)
		}
		p := newPublisher(t, cfg, bus.PublisherOptions{Ordered: true})
		err := p.Publish(topic, newMessage("a", oona.MetaToPartition, "0"), newMessage("b", oona.MetaToPartition, "7"), newMessage("c", oona.MetaToPartition, "1"))
		var failed *bus.PublishError
		if !errors.As(err, &failed) || len(failed.Failed) != 1 || failed.Failed[0].Index != 1 {
			t.Errorf("a partition that is not there: %v", err)
		}
	})
}
