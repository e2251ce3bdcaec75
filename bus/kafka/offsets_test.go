package kafka_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
)

// A leader may accept requests and not answer, for example if its process is stopped. At the latest in
// its next attempt, the client uses the leader that the other brokers know.
func TestOffsetsOfALeaderThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.Config{Brokers: cluster.ListenAddrs(), ClientID: "bus-test", Settle: 500 * time.Millisecond}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "led", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Net.ReadTimeout = cfg.Settle + 200*time.Millisecond
	client, err := sarama.NewClient(cfg.Brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	leader, err := client.Leader("led", 0)
	if err != nil {
		t.Fatal(err)
	}
	silent := leader.ID()
	var unanswered atomic.Int64
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	cluster.ControlKey(kmsg.ListOffsets.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if cluster.CurrentNode() == silent {
			unanswered.Add(1)
			cluster.SleepControl(func() { <-end })
		}
		return nil, nil, false
	})
	if err := cluster.MoveTopicPartition("led", 0, 1-silent); err != nil {
		t.Fatal(err)
	}
	if ends, err := kafka.EndOf(t.Context(), cfg, client, "led", 0); err == nil {
		t.Fatalf("the leader answered: %v", ends)
	}
	before := unanswered.Load()
	eventually(t, "the new leader answers", func() bool { _, err := kafka.EndOf(t.Context(), cfg, client, "led", 0); return err == nil })
	if again := unanswered.Load(); before == 0 || again != before {
		t.Errorf("the silent leader was asked %d times in the first attempt, and %d times after it", before, again-before)
	}
}
