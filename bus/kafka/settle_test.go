package kafka_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// laggingCluster is a cluster of three brokers. Some of them do not know any topic until
// they have been asked a number of times.
type laggingCluster struct {
	cfg   kafka.Config
	left  atomic.Int64 // number of stale answers that will still be given
	stale atomic.Int64 // number of stale answers that were given
}

const (
	notLeader    = 6 // NOT_LEADER_OR_FOLLOWER
	unknownTopic = 3 // UNKNOWN_TOPIC_OR_PARTITION
)

func startLagging(t *testing.T, nodes ...int32) *laggingCluster {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return startLaggingOn(t, cluster, 3, nodes...)
}

// startLaggingOn makes nodes of a cluster lag. While they lag, they list only counted brokers.
func startLaggingOn(t *testing.T, cluster *kfake.Cluster, counted int, nodes ...int32) *laggingCluster {
	t.Helper()
	l := &laggingCluster{cfg: kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "bus-test"})}
	lags := func() bool {
		cluster.KeepControl()
		for _, n := range nodes {
			if n == cluster.CurrentNode() && l.left.Add(-1) >= 0 {
				l.stale.Add(1)
				return true
			}
		}
		return false
	}
	cluster.ControlKey(kmsg.Metadata.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		request := r.(*kmsg.MetadataRequest)
		if !lags() { // including requests for all topics
			return nil, nil, false
		}
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		last := len(l.cfg.Brokers) - 1
		response.ControllerID = int32(last) // in kfake
		for i, address := range l.cfg.Brokers {
			if i < last-counted+1 {
				continue
			}
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err, true
			}
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host = int32(i), host
			number, err := strconv.ParseInt(port, 10, 32)
			if err != nil {
				return nil, err, true
			}
			b.Port = int32(number)
			response.Brokers = append(response.Brokers, b)
		}
		for _, asked := range request.Topics {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic, topic.ErrorCode = asked.Topic, unknownTopic
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	})
	return l
}

// After Apply, every broker knows the topics.
func TestApplyReturnsWhenAllBrokersKnow(t *testing.T) {
	t.Parallel()
	for _, node := range []int32{0, 1, 2} {
		l := startLagging(t, node)
		l.left.Store(7)
		specs := []oona.TopicSpec{{Name: "applied", Partitions: 5, AppendTime: true}}
		changes, err := kafka.New(l.cfg, nil).Apply(t.Context(), specs)
		if err != nil || len(changes) != 1 {
			t.Fatalf("%v, %v", changes, err)
		}
		if l.left.Load() >= 0 || l.stale.Load() != 7 {
			t.Errorf("broker %d does not know the topic yet: %d answers of 7 were stale", node, l.stale.Load())
		}
	}
}

// The error of Apply names a broker that does not learn of the topics.
func TestApplyNamesTheBrokerThatDoesNotKnow(t *testing.T) {
	t.Parallel()
	l := startLagging(t, 1)
	l.left.Store(1 << 40)
	ctx, cancel := context.WithCancel(t.Context())
	var ending sync.WaitGroup
	ending.Go(func() { // ends Apply when so many requests show that it has asked all brokers
		for l.stale.Load() < 10 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	})
	defer ending.Wait()
	defer cancel()
	changes, err := kafka.New(l.cfg, nil).Apply(ctx, []oona.TopicSpec{{Name: "applied", Partitions: 5}})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "broker 1 at "+l.cfg.Brokers[1]) || len(changes) != 1 {
		t.Errorf("%v, %v", changes, err)
	}
}

// Check reports topics that some or all brokers do not know yet. It does not fail because
// of one broker.
func TestCheckAsksAgain(t *testing.T) {
	specs := []oona.TopicSpec{{Name: "checked", Partitions: 5}}
	for name, c := range map[string]struct {
		nodes []int32
		lag   int64
		fault bool
	}{
		"one, for a moment":  {[]int32{1}, 3, false},
		"all, for a moment":  {[]int32{0, 1, 2}, 9, false},
		"one, for long":      {[]int32{2}, 1 << 40, false},
		"all, for very long": {[]int32{0, 1, 2}, 1 << 40, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLagging(t, c.nodes...)
			if _, err := kafka.New(l.cfg, nil).Apply(t.Context(), specs); err != nil {
				t.Fatal(err)
			}
			l.left.Store(c.lag)
			if c.lag < 1<<40 {
				l.cfg.Settle = waitLimit // on a busy machine, the brokers may lag for long
			}
			err := kafka.New(l.cfg, nil).Check(t.Context(), specs)
			if c.fault {
				checkFaults(t, err, fault("checked", bus.FaultMissing))
			} else if err != nil {
				t.Error(err)
			}
			if l.stale.Load() == 0 {
				t.Error("no broker was behind")
			}
		})
	}
}

// Config.Settle is how long Check repeats its requests. The default is 3 seconds.
func TestCheckAsksAgainForTheTimeToSettle(t *testing.T) {
	specs := []oona.TopicSpec{{Name: "absent", Partitions: 5}}
	l := startLagging(t)
	if settle := l.cfg.SettleTime(); settle != 3*time.Second {
		t.Errorf("by default it is %s", settle)
	}
	l.cfg.Settle = 300 * time.Millisecond
	began := time.Now()
	checkFaults(t, kafka.New(l.cfg, nil).Check(t.Context(), specs), fault("absent", bus.FaultMissing))
	if took := time.Since(began); took < l.cfg.Settle {
		t.Errorf("it refused after %s", took)
	}
}

// Requests about a topic that was just created are repeated until the broker knows the topic.
func TestReadersWaitForTheBrokerThatTheyAsk(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(cfg kafka.Config) error{
		"high water": func(cfg kafka.Config) error { _, err := kafka.New(cfg, nil).Extents(t.Context(), "asked"); return err },
		"commits": func(cfg kafka.Config) error {
			_, err := kafka.New(cfg, nil).Commits(t.Context(), "g", "asked")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLagging(t, 0, 1, 2)
			if _, err := kafka.New(l.cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "asked", Partitions: 2}}); err != nil {
				t.Fatal(err)
			}
			l.left.Store(4)
			l.cfg.Settle = waitLimit
			if err := ask(l.cfg); err != nil {
				t.Error(err)
			}
		})
	}
}

// A broker that has become the leader of a partition may not serve it immediately.
func TestOffsetsOfALeaderThatBegins(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	var refused atomic.Int64
	cluster.ControlKey(kmsg.ListOffsets.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if refused.Add(1) > 6 {
			return nil, nil, false
		}
		request := r.(*kmsg.ListOffsetsRequest)
		response := request.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, asked := range request.Topics {
			topic := kmsg.NewListOffsetsResponseTopic()
			topic.Topic = asked.Topic
			for _, p := range asked.Partitions {
				partition := kmsg.NewListOffsetsResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, notLeader
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	})
	cfg := kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "bus-test"})
	cfg.Settle = waitLimit
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "led", Partitions: 6}}); err != nil {
		t.Fatal(err)
	}
	if refused.Load() <= 6 {
		t.Errorf("apply did not wait for the leaders: they were asked %d times", refused.Load())
	}
	refused.Store(0)
	ends, err := kafka.New(cfg, nil).Extents(t.Context(), "led")
	if err != nil || len(ends["led"]) != 6 {
		t.Errorf("%v, %v", ends, err)
	}
	if asked := refused.Load(); asked > 12 {
		t.Errorf("%d requests for the ends of 6 partitions: they are not asked for together", asked)
	}
}

// A cluster of two brokers makes one replica. If a third broker exists and is only down for a moment,
// there are three replicas.
func TestReplicationWhileABrokerIsAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		has, known int
		want       int
	}{
		"two":                {2, 2, 1},
		"three, one is away": {3, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(c.has))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			cfg := kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "bus-test"})
			var made atomic.Int64
			cluster.ControlKey(kmsg.CreateTopics.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				made.Store(int64(r.(*kmsg.CreateTopicsRequest).Topics[0].ReplicationFactor))
				return nil, nil, false
			})
			if c.known < c.has {
				l := startLaggingOn(t, cluster, c.known, 0, 1, 2)
				l.left.Store(5)
			}
			if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "made", Partitions: 2}}); err != nil {
				t.Fatal(err)
			}
			if made.Load() != int64(c.want) {
				t.Errorf("the topic was made with %d copies, want %d", made.Load(), c.want)
			}
		})
	}
}

// If the controller cannot be reached, Apply looks for it again.
func TestApplyLooksForTheController(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cut := 0
	cluster.ControlKey(kmsg.CreateTopics.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if cut++; cut <= 12 {
			return nil, errCutOff, true
		}
		return nil, nil, false
	})
	cfg := kafka.Patient(kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "bus-test"})
	changes, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "a", Partitions: 2}, {Name: "b", Partitions: 1}})
	if err != nil || len(changes) != 2 {
		t.Errorf("%v, %v", changes, err)
	}
}
