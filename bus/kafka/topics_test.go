package kafka_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// newAdmin returns a connection for operations that this package does not have.
func newAdmin(t *testing.T, cfg kafka.Config) sarama.ClusterAdmin {
	t.Helper()
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	s.Admin.Timeout, s.Net.ReadTimeout = time.Minute, 2*time.Minute // brokers on a busy machine take more than 3 s
	admin, err := sarama.NewClusterAdmin(cfg.Brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
	})
	return admin
}

func configure(t *testing.T, cfg kafka.Config, topic, name, value string) {
	t.Helper()
	err := newAdmin(t, cfg).IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		name: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
}

func TestApplyAndCheckTopics(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		specs := []oona.TopicSpec{
			{Name: unique("input"), Partitions: 4, AppendTime: true},
			{Name: unique("output"), Partitions: 4},
			{Name: unique("side"), Partitions: 1},
		}
		checkFaults(t, kafka.New(cfg, nil).Check(t.Context(), specs), fault(specs[0].Name, bus.FaultMissing), fault(specs[1].Name, bus.FaultMissing), fault(specs[2].Name, bus.FaultMissing))

		changes, err := kafka.New(cfg, nil).Apply(t.Context(), specs)
		if err != nil || len(changes) != 3 {
			t.Fatalf("%v, %v", changes, err)
		}
		for i, change := range changes {
			if change.Topic != specs[i].Name || change.What == "" {
				t.Errorf("%v", change)
			}
		}
		if err := kafka.New(cfg, nil).Check(t.Context(), specs); err != nil { // all brokers know them
			t.Error(err)
		}
		if changes, err := kafka.New(cfg, nil).Apply(t.Context(), specs); err != nil || len(changes) > 0 {
			t.Errorf("applied again: %v, %v", changes, err)
		}

		// Now every setting is wrong.
		configure(t, cfg, specs[0].Name, "message.timestamp.type", "CreateTime")
		configure(t, cfg, specs[0].Name, "cleanup.policy", "compact")
		configure(t, cfg, specs[0].Name, "retention.ms", "7200000")
		wrong := append(slices.Clone(specs), oona.TopicSpec{Name: unique("missing"), Partitions: 2})
		wrong[1].Partitions = 5
		checkFaults(t, kafka.New(cfg, nil).Check(t.Context(), wrong),
			fault(specs[0].Name, bus.FaultSetting), // cleanup.policy
			fault(specs[0].Name, bus.FaultSetting), // message.timestamp.type
			fault(specs[1].Name, bus.FaultPartitions),
			fault(wrong[3].Name, bus.FaultMissing),
		)

		// Apply corrects what it can, reports the changes, and names the other faults.
		changes, err = kafka.New(cfg, nil).Apply(t.Context(), wrong)
		checkFaults(t, err, fault(specs[1].Name, bus.FaultPartitions))
		var of []string
		for _, change := range changes {
			of = append(of, change.Topic)
		}
		if !slices.Equal(of, []string{specs[0].Name, specs[0].Name, wrong[3].Name}) {
			t.Errorf("changes %v", changes)
		}
		for name, want := range map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"} {
			if got := setting(t, cfg, specs[0].Name, name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if err := kafka.New(cfg, nil).Check(t.Context(), specs); err != nil {
			t.Error(err)
		}
		ends, err := kafka.New(cfg, nil).Extents(t.Context(), specs[1].Name)
		if err != nil || len(ends[specs[1].Name]) != 4 {
			t.Errorf("partitions were changed: %v, %v", ends, err)
		}
		if got := setting(t, cfg, specs[0].Name, "retention.ms"); got != "7200000" {
			t.Errorf("retention.ms, which is not a setting of Oona, is %s", got)
		}
	})
}

func setting(t *testing.T, cfg kafka.Config, topic, name string) string {
	t.Helper()
	results, err := newAdmin(t, cfg).DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name}}}, sarama.DescribeConfigsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		for _, e := range result.Configs {
			if e.Name == name {
				return e.Value
			}
		}
	}
	t.Fatalf("%s has no %s", topic, name)
	return ""
}

func fault(topic string, kind bus.FaultKind) bus.TopicFault {
	return bus.TopicFault{Topic: topic, Kind: kind}
}

// checkFaults checks that the error lists faults of exactly these topics and kinds.
func checkFaults(t *testing.T, err error, want ...bus.TopicFault) {
	t.Helper()
	wrong, ok := errors.AsType[*bus.TopicsError](err)
	if !ok {
		t.Fatalf("%v", err)
	}
	var got []bus.TopicFault
	for _, f := range wrong.Faults {
		got = append(got, fault(f.Topic, f.Kind))
	}
	order := func(a, b bus.TopicFault) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Kind, b.Kind))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("%v\nhas the faults %+v, want %+v", err, got, want)
	}
}

// A cluster of three brokers makes three replicas, and a cluster of one makes one.
func TestReplication(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 2, true)
		described, err := newAdmin(t, cfg).DescribeTopics([]string{topic})
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if len(cfg.Brokers) >= 3 {
			want = 3
			if got := setting(t, cfg, topic, "min.insync.replicas"); got != "2" {
				t.Errorf("min.insync.replicas is %s", got)
			}
		}
		for _, p := range described[0].Partitions {
			if len(p.Replicas) != want {
				t.Errorf("partition %d has %d replicas, want %d", p.ID, len(p.Replicas), want)
			}
		}
		// A spec without a number of partitions accepts any.
		if err := kafka.New(cfg, nil).Check(t.Context(), []oona.TopicSpec{{Name: topic, AppendTime: true}}); err != nil {
			t.Error(err)
		}
	})
}

// A topic with too few replicas is reported and not changed.
func TestTooFewReplicas(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		if len(cfg.Brokers) < 3 {
			t.Skip("takes three brokers")
		}
		name := unique("one-copy")
		if err := newAdmin(t, cfg).CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
			t.Fatal(err)
		}
		spec := []oona.TopicSpec{{Name: name, Partitions: 1}}
		_, err := kafka.New(cfg, nil).Apply(t.Context(), spec)
		checkFaults(t, err, fault(name, bus.FaultCopies))
		checkFaults(t, kafka.New(cfg, nil).Check(t.Context(), spec), fault(name, bus.FaultCopies))
	})
}

func TestRetentionOfATopic(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		for value, want := range map[string]time.Duration{"86400000": 24 * time.Hour, "-1": 0, "9223372036854775807": 0} {
			entries := map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}
			if err := newAdmin(t, cfg).IncrementalAlterConfig(sarama.TopicResource, topic, entries, false); err != nil {
				t.Fatal(err)
			}
			eventually(t, fmt.Sprintf("retention.ms=%s is %s", value, want), func() bool { // of any broker
				got, err := kafka.New(cfg, nil).Retention(t.Context(), topic)
				if err != nil {
					t.Fatal(err)
				}
				return got.Age == want
			})
		}
		if _, err := kafka.New(cfg, nil).Retention(t.Context(), unique("no-topic")); err == nil {
			t.Error("a topic that is not there has a retention")
		}
	})
}

// A compacted topic stays compacted.
func TestCompactedTopic(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		specs := []oona.TopicSpec{{Name: unique("settings"), Partitions: 1, Compacted: true}}
		if _, err := kafka.New(cfg, nil).Apply(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
		if err := kafka.New(cfg, nil).Check(t.Context(), specs); err != nil {
			t.Error(err)
		}
		if got := setting(t, cfg, specs[0].Name, "cleanup.policy"); got != "compact" {
			t.Errorf("cleanup.policy is %s", got)
		}
		configure(t, cfg, specs[0].Name, "cleanup.policy", "delete")
		checkFaults(t, kafka.New(cfg, nil).Check(t.Context(), specs), fault(specs[0].Name, bus.FaultSetting))
		if changes, err := kafka.New(cfg, nil).Apply(t.Context(), specs); err != nil || len(changes) != 1 || changes[0].What != "cleanup.policy was delete, is compact now" {
			t.Errorf("%v, %v", changes, err)
		}
	})
}
