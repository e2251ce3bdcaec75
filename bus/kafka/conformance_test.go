package kafka_test

import (
	"cmp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/bustest"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// TestConformance runs the conformance suite on each bus that speaks Kafka's protocol.
func TestConformance(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		f := &brokerFaults{refused: make(map[place]bool), silent: make(map[place]bool), faltering: make(map[place]int), held: make(map[place]*hold)}
		broker := startEmbedded(t, embedded.Options{Control: f.control})
		bustest.Run(t, func(*testing.T) bustest.Harness {
			h := harness(kafka.Patient(kafka.Config{Brokers: broker.Addrs, ClientID: "bus-test", Settle: 200 * time.Millisecond}))
			h.UnboundedMetadata = true
			h.Faults.Refuse, h.Faults.Falter, h.Faults.Hold, h.Faults.Silence = f.refuse, f.falter, f.hold, f.silence
			return h
		})
	})
	realKafka(t, func(t *testing.T, cfg kafka.Config) {
		bustest.Run(t, func(*testing.T) bustest.Harness { return harness(cfg) })
	})
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// brokerFaults makes an embedded broker refuse or not answer requests.
type brokerFaults struct {
	mu        sync.Mutex
	refused   map[place]bool // partitions for which the next request is refused
	faltering map[place]int  // for each partition, how many requests fail
	held      map[place]*hold
	silent    map[place]bool // partitions for which requests for the end get no answer
}

type hold struct {
	requests int
	open     chan struct{}
}

func (f *brokerFaults) control(c *kfake.Cluster, r kmsg.Request) (kmsg.Response, error, bool) {
	switch request := r.(type) {
	case *kmsg.ProduceRequest:
		return f.produce(c, request)
	case *kmsg.ListOffsetsRequest:
		return f.listOffsets(request)
	}
	return nil, nil, false
}

func (f *brokerFaults) listOffsets(request *kmsg.ListOffsetsRequest) (kmsg.Response, error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, topic := range request.Topics {
		for _, partition := range topic.Partitions {
			if f.silent[place{topic.Topic, partition.Partition}] {
				return nil, errCutOff, true
			}
		}
	}
	return nil, nil, false
}

func (f *brokerFaults) produce(c *kfake.Cluster, request *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
	for _, topic := range request.Topics {
		for _, partition := range topic.Partitions {
			at := place{topic.Topic, partition.Partition}
			f.mu.Lock()
			held, refused := f.held[at], f.refused[at]
			delete(f.refused, at)
			falters := f.faltering[at] > 0
			f.faltering[at]--
			if held != nil {
				held.requests++
			}
			f.mu.Unlock()
			if refused {
				return refusal(request, kerr.TopicAuthorizationFailed), nil, true
			}
			if falters {
				return refusal(request, kerr.NotEnoughReplicas), nil, true
			}
			if held != nil {
				c.SleepControl(func() { <-held.open })
			}
		}
	}
	return nil, nil, false
}

func (f *brokerFaults) silence(_ *testing.T, topic string, partition int32) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent[place{topic, partition}] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.silent, place{topic, partition})
	}
}

func (f *brokerFaults) refuse(_ *testing.T, topic string, partition int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[place{topic, partition}] = true
}

func (f *brokerFaults) falter(_ *testing.T, topic string, partition int32, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faltering[place{topic, partition}] = n
}

func (f *brokerFaults) hold(t *testing.T, topic string, partition int32) (waiting func() int, release func()) {
	at, held := place{topic, partition}, &hold{open: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[at] = held
	release = sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.held, at)
		close(held.open)
	})
	t.Cleanup(release)
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return held.requests
	}, release
}

// harness returns a bus whose servers do not fail.
func harness(cfg kafka.Config) bustest.Harness {
	return bustest.Harness{
		Bus: kafka.New(cfg, discard()),
		Faults: bustest.Faults{
			DeleteTopic: func(t *testing.T, topic string) {
				t.Helper()
				if err := newAdmin(t, cfg).DeleteTopic(topic); err != nil {
					t.Fatal(err)
				}
			},
			AddPartitions: func(t *testing.T, topic string, n int32) {
				t.Helper()
				if err := newAdmin(t, cfg).CreatePartitions(topic, n, nil, false); err != nil {
					t.Fatal(err)
				}
			},
			Retain: func(t *testing.T, topic string, r bus.Retention) {
				t.Helper()
				configure(t, cfg, topic, "retention.ms", strconv.FormatInt(cmp.Or(r.Age.Milliseconds(), -1), 10))
				configure(t, cfg, topic, "retention.bytes", strconv.FormatInt(cmp.Or(r.Bytes, -1), 10))
			},
			Trim: func(t *testing.T, topic string, partition int32, start int64) {
				t.Helper()
				if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{partition: start}); err != nil {
					t.Fatal(err)
				}
			},
			Expel: func(t *testing.T, group string, _ bus.Member) func() {
				t.Helper()
				expel(t, cfg, group)
				return func() {} // the next heartbeat tells the member
			},
		},
	}
}

// expel removes the only member from its group, as the coordinator does if a member has sent no
// heartbeat for too long.
func expel(t *testing.T, cfg kafka.Config, group string) {
	t.Helper()
	groups, err := newAdmin(t, cfg).DescribeConsumerGroups([]string{group})
	if err != nil || len(groups) != 1 || len(groups[0].Members) != 1 {
		t.Fatalf("want one member of %s: %+v, %v", group, groups, err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group = group
	for id := range groups[0].Members {
		request.MemberID = id
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = id
		request.Members = append(request.Members, member)
	}
	response, err := request.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(response.ErrorCode)
	}
	for i := 0; err == nil && i < len(response.Members); i++ {
		err = kerr.ErrorForCode(response.Members[i].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatermill runs Watermill's own suite for the parts of its contract that a member fulfils.
func TestWatermill(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		bustest.RunWatermill(t, func(*testing.T) bustest.Harness { return harness(cfg) })
	})
}
