package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// refuser is a broker that refuses some produce requests for partition 0.
type refuser struct {
	*kfake.Cluster
	mu      sync.Mutex
	refuse  []*kerr.Error // errors for the next requests; nil accepts a request
	refused int
}

func startRefuser(t *testing.T) (*refuser, kafka.Config) {
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
	return r, kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"})
}

func (r *refuser) script(refuse ...*kerr.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.refused = refuse, 0
}

func (r *refuser) answer(request *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refuse) == 0 || request.Topics[0].Partitions[0].Partition != 0 {
		return nil, nil, false
	}
	next := r.refuse[0]
	r.refuse = r.refuse[1:]
	if next == nil {
		return nil, nil, false
	}
	r.refused++
	return refusal(request, next), nil, true
}

// refusal is a response with an error for each partition.
func refusal(request *kmsg.ProduceRequest, why *kerr.Error) kmsg.Response {
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range request.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, why.Code
			topic.Partitions = append(topic.Partitions, partition)
		}
		response.Topics = append(response.Topics, topic)
	}
	return response
}

// If a batch fails permanently, no later record of its call is written to its partition, whichever
// batch of the call it is. The other partition is not affected. When the call is repeated, the rest
// is written in order.
func TestNothingOvertakesAFailedBatch(t *testing.T) {
	t.Parallel()
	const count = 3000 // 1 kB each, three batches
	for _, before := range []int{0, 1, 2} {
		t.Run(strconv.Itoa(before), func(t *testing.T) {
			broker, cfg := startRefuser(t)
			topic := makeTopic(t, cfg, 2, false)
			p := newPublisher(t, cfg, bus.PublisherOptions{})
			messages := numbered(0, count, 0)
			for _, msg := range messages {
				msg.Payload = append(msg.Payload, make([]byte, 1000)...)
			}
			broker.script(append(make([]*kerr.Error, before), kerr.TopicAuthorizationFailed)...)
			err := p.Publish(context.Background(), topic, append(slices.Clone(messages), numbered(0, 5, 1)...)...)
			var failed *bus.PublishError
			if !errors.As(err, &failed) || !errors.Is(err, sarama.ErrTopicAuthorizationFailed) || broker.refused != 1 {
				t.Fatalf("%v; %d requests were refused", err, broker.refused)
			}
			ends, err := kafka.New(cfg, nil).Extents(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			written := int(ends[topic][0].End)
			if (written > 0) != (before > 0) || ends[topic][1].End != 5 || len(failed.Failed) != count-written {
				t.Fatalf("written are %v, %d have failed", ends[topic], len(failed.Failed))
			}
			for i, f := range failed.Failed {
				if f.Index != written+i {
					t.Fatalf("message %d has failed; %d were written", f.Index, written)
				}
			}
			publish(t, p, topic, messages...)
			highest, read := -1, 0 // like a reader of rollups, which drops records that are not above the highest trigger
			for _, msg := range readAll(t, cfg, topic, written+count+5) {
				if int64(position(t, msg).Partition) != 0 {
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

// After temporary failures, the publisher tries again.
func TestPublisherTriesAgain(t *testing.T) {
	broker, cfg := startRefuser(t)
	topic := makeTopic(t, cfg, 1, false)
	opts := bus.RollupOptions()
	opts.DeliveryTimeout = waitLimit
	p := newPublisher(t, cfg, opts)
	broker.script(kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.RequestTimedOut)
	publish(t, p, topic, newMessage("x", withKey, "key", "header", "1"))
	if broker.refused != 3 {
		t.Errorf("%d requests were refused", broker.refused)
	}
	msg := readAll(t, cfg, topic, 1)[0]
	if string(msg.Payload) != "x" || string(position(t, msg).Key) != "key" || msg.Metadata["header"] != "1" {
		t.Errorf("%q %v came", msg.Payload, msg.Metadata)
	}
}

// If the bus refuses rollups, the publisher returns an error within seconds, even if the delivery
// timeout is an hour.
func TestRefusedRollupsFailSoon(t *testing.T) {
	t.Parallel()
	broker, cfg := startRefuser(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.RollupOptions())
	broker.script(slices.Repeat([]*kerr.Error{kerr.NotEnoughReplicas}, 100_000)...)
	failed := make(chan error, 1)
	go func() { failed <- p.Publish(context.Background(), topic, newMessage("x")) }()
	select {
	case err := <-failed:
		var refused *bus.PublishError
		if !errors.As(err, &refused) || !errors.Is(err, sarama.ErrNotEnoughReplicas) {
			t.Errorf("%v", err)
		}
	case <-time.After(waitLimit):
		t.Fatalf("nothing was heard in %s", waitLimit)
	}
	if broker.refused == 0 {
		t.Error("nothing was refused")
	}
	broker.script()
	publish(t, p, topic, newMessage("y"))
}

// Compression does not change keys, headers, times or partitions.
func TestCompressionChangesNoRecord(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 5, false)
		for _, compression := range []string{"none", "lz4"} {
			p := newPublisher(t, cfg, bus.PublisherOptions{Compression: compression})
			publish(t, p, topic,
				newMessage("keyed", withKey, "foobar", "header", "1", "$offset", "from outside"),
				newMessage("directed", toPartition, "3", withTime, "1700000000123000"),
				newMessage("directed later", toPartition, "3", withTime, "1700000009123000"),
				newMessage("directed earlier", toPartition, "3", withTime, "1600000000123000"),
				newMessage("", toPartition, "4"))
		}
		seen := make(map[string]string)
		for _, msg := range readAll(t, cfg, topic, 10) {
			name := string(msg.Payload)
			at := position(t, msg)
			at.Offset = 0
			if name == "keyed" || name == "" { // the times of these are not compared
				at.Appended = 0
			}
			text := fmt.Sprint(msg.Metadata, at)
			if before, again := seen[name]; again && before != text {
				t.Errorf("%q came as %s and as %s", name, before, text)
			}
			seen[name] = text
		}
		if len(seen) != 5 {
			t.Errorf("%v came", seen)
		}
	})
}

// gate is a broker that delays the produce requests for one partition.
type gate struct {
	*kfake.Cluster
	held atomic.Int32 // the partition whose requests are delayed; -1 if there is none
	open chan struct{}

	mu       sync.Mutex
	requests map[int32][]int // by partition: the number of records of each request
}

func startGate(t *testing.T) (*gate, kafka.Config) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	g := &gate{Cluster: cluster, open: make(chan struct{}), requests: make(map[int32][]int)}
	g.held.Store(-1)
	cluster.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, p := range request.(*kmsg.ProduceRequest).Topics[0].Partitions {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(p.Records); err != nil {
				t.Error(err)
			}
			g.mu.Lock()
			g.requests[p.Partition] = append(g.requests[p.Partition], int(batch.NumRecords))
			g.mu.Unlock()
			if p.Partition == g.held.Load() {
				cluster.SleepControl(func() { <-g.open })
			}
		}
		return nil, nil, false
	})
	return g, kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"})
}

// holdBack delays the requests for a partition until the returned function is called.
func (g *gate) holdBack(t *testing.T, partition int32) (release func()) {
	g.held.Store(partition)
	release = sync.OnceFunc(func() { g.held.Store(-1); close(g.open) })
	t.Cleanup(release)
	return release
}

func (g *gate) requestsTo(partition int32) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.requests[partition])
}

// A partition has at most one request in progress. Messages that arrive during the request, from any
// call, become the next request.
func TestCallsShareRequests(t *testing.T) {
	const count = 50
	broker, cfg := startGate(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	release := broker.holdBack(t, 0)
	var publishing sync.WaitGroup
	send := func(n int) {
		publishing.Go(func() {
			if err := p.Publish(context.Background(), topic, numbered(n, n+1, 0)...); err != nil {
				t.Error(err)
			}
		})
	}
	send(0)
	eventually(t, "the first request is there", func() bool { return len(broker.requestsTo(0)) == 1 })
	for n := range count {
		send(n + 1)
	}
	eventually(t, "the others wait", func() bool { return kafka.Waiting(p, topic, 0) == count+1 })
	release()
	publishing.Wait()
	if got := broker.requestsTo(0); !slices.Equal(got, []int{1, count}) {
		t.Errorf("the requests had %d records, want 1 and %d", got, count)
	}
}

// If the bus refuses messages, only their own call fails.
func TestARefusalIsOfOneCall(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		limitMessages(t, cfg, topic, 2000)
		p := newPublisher(t, cfg, bus.PublisherOptions{})
		var publishing sync.WaitGroup
		for n := range 40 {
			publishing.Go(func() {
				size := 10
				if n%10 == 0 {
					size = 3000
				}
				err := p.Publish(context.Background(), topic, newMessage(fmt.Sprint(n)+strings.Repeat("x", size)))
				if (err != nil) != (n%10 == 0) {
					t.Errorf("call %d: %v", n, err)
				}
				if err != nil {
					checkTooLarge(t, err)
				}
			})
		}
		publishing.Wait()
	})
}

// Pinned does not wait for a bus that cannot be reached, while calls of Publish do.
func TestPinnedDoesNotWait(t *testing.T) {
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{Pin: topic})
	publish(t, p, topic, newMessage("x"))
	broker.down()
	ctx, cancel := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	for range 10 {
		publishing.Go(func() {
			if err := p.Publish(ctx, topic, newMessage("x")); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
	eventually(t, "calls wait", func() bool { return kafka.Waiting(p, topic, 0) == 10 })
	for range 20 {
		began := time.Now()
		if err := p.Pinned(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > waitLimit {
			t.Fatalf("it took %s", took)
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	publishing.Wait()
}
