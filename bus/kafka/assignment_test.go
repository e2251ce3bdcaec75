package kafka

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// startCounting starts a cluster that counts requests by their kind. Responses of the
// functions in refuse, by kind, replace the responses of the cluster, unless they are nil.
func startCounting(t *testing.T, refuse map[int16]func(kmsg.Request) kmsg.Response) (cfg Config, counted func(kind int16) int) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	var mu sync.Mutex
	counts := make(map[int16]int)
	cluster.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		counts[r.Key()]++
		if answer := refuse[r.Key()]; answer != nil {
			if response := answer(r); response != nil {
				return response, nil, true
			}
		}
		return nil, nil, false
	})
	return Config{Brokers: cluster.ListenAddrs(), ClientID: "test", Settle: 5 * time.Minute, Patience: 2 * time.Minute}, func(kind int16) int {
		mu.Lock()
		defer mu.Unlock()
		return counts[kind]
	}
}

// All partitions are described with few requests, because a rebalance waits for the answers.
func TestPartitionsAreDescribedTogether(t *testing.T) {
	const partitions = 60
	cfg, counted := startCounting(t, nil)
	if _, err := New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "many", Partitions: partitions}}); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, nil).Member(bus.MemberOptions{Group: "g"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all []int32
	for p := range int32(partitions) {
		all = append(all, p)
	}
	before := counted(kmsg.ListOffsets.Int16())
	assignments, _, err := s.(*Member).describe(t.Context(), "many", all...)
	if err != nil || len(assignments) != partitions {
		t.Fatalf("%d assignments: %v", len(assignments), err)
	}
	for p, a := range assignments {
		if a.Partition != int32(p) || a.Partitions != partitions || a.Committed.Offset != bus.NoOffset || a.LogStart != 0 || a.LogEnd != 0 || a.Settled {
			t.Errorf("%+v", a)
		}
	}
	if asked := counted(kmsg.ListOffsets.Int16()) - before; asked > 6 { // two for each broker
		t.Errorf("%d requests for the offsets of %d partitions", asked, partitions)
	}
	if asked := counted(kmsg.OffsetFetch.Int16()); asked > 2 {
		t.Errorf("%d requests for the commits of %d partitions", asked, partitions)
	}
}

// While the coordinator of a group is being elected, the request is repeated.
func TestCommitsWaitForTheirCoordinator(t *testing.T) {
	t.Parallel()
	refusals := 6
	cfg, _ := startCounting(t, map[int16]func(kmsg.Request) kmsg.Response{
		kmsg.OffsetFetch.Int16(): func(r kmsg.Request) kmsg.Response {
			if refusals--; refusals < 0 {
				return nil
			}
			response := r.ResponseKind().(*kmsg.OffsetFetchResponse)
			response.ErrorCode = 16 // NOT_COORDINATOR
			return response
		},
	})
	if _, err := New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "committed", Partitions: 3}}); err != nil {
		t.Fatal(err)
	}
	commits, err := New(cfg, nil).Commits(t.Context(), "g", "committed")
	if err != nil || len(commits) != 3 || commits[2].Offset != bus.NoOffset {
		t.Errorf("%v, %v", commits, err)
	}
}

// If a leader does not serve its partition yet, the request is repeated.
func TestEmptyAsksAgain(t *testing.T) {
	t.Parallel()
	refusals := 3
	cfg, _ := startCounting(t, map[int16]func(kmsg.Request) kmsg.Response{
		kmsg.Fetch.Int16(): func(r kmsg.Request) kmsg.Response {
			if refusals--; refusals < 0 {
				return nil
			}
			response := r.ResponseKind().(*kmsg.FetchResponse)
			topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
			topic.Topic, partition.ErrorCode = r.(*kmsg.FetchRequest).Topics[0].Topic, 6 // NOT_LEADER_OR_FOLLOWER
			topic.Partitions = append(topic.Partitions, partition)
			response.Topics = append(response.Topics, topic)
			return response
		},
	})
	b := New(cfg, nil)
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: "read", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	p, err := b.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Publish(t.Context(), "read", message.NewMessage("", []byte("x"))), p.Close()); err != nil {
		t.Fatal(err)
	}
	if msg, err := bus.RecordAt(t.Context(), b, "read", 0, 0); err != nil || msg == nil {
		t.Errorf("%v, %v", msg, err)
	}
	if refusals >= 0 {
		t.Error("no leader refused")
	}
}
