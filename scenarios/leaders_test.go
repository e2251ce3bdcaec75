package scenarios

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
)

// leader returns the broker that leads a partition.
func (c *cluster) leader(t *testing.T, ctx context.Context, topic string, partition int32) int {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	for _, p := range c.describe(t, ctx, client, topic).Partitions {
		if p.Partition == partition {
			return int(p.Leader)
		}
	}
	t.Fatalf("%s has no partition %d", topic, partition)
	return 0
}

// leaderOrNone is leader, but returns 0 if the partition has no leader.
func (c *cluster) leaderOrNone(ctx context.Context, topic string, partition int32) int {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		return 0
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return 0
	}
	for _, p := range response.Topics[0].Partitions {
		if p.Partition == partition && p.ErrorCode == 0 {
			return int(max(0, p.Leader))
		}
	}
	return 0
}

// coordinator returns the broker that coordinates a group.
func (c *cluster) coordinator(t *testing.T, ctx context.Context, group string) int {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey = group
	request.CoordinatorKeys = []string{group}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	id, code := response.NodeID, response.ErrorCode
	if len(response.Coordinators) > 0 {
		id, code = response.Coordinators[0].NodeID, response.Coordinators[0].ErrorCode
	}
	if err := kerr.ErrorForCode(code); err != nil {
		t.Fatal(err)
	}
	return int(id)
}

// lead makes broker p+1 the leader of partition p, for topics with one partition per broker.
func (c *cluster) lead(t *testing.T, ctx context.Context, topics ...string) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	brokers := int32(len(c.Addrs()))
	assign := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	elect := kmsg.NewPtrElectLeadersRequest() // prefers the first replica
	elect.TimeoutMillis = 10_000
	for _, topic := range topics {
		assigned := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		assigned.Topic = topic
		elected := kmsg.NewElectLeadersRequestTopic()
		elected.Topic = topic
		for p := range brokers {
			one := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			one.Partition = p
			for i := range brokers {
				one.Replicas = append(one.Replicas, (p+i)%brokers+1)
			}
			assigned.Partitions = append(assigned.Partitions, one)
			elected.Partitions = append(elected.Partitions, p)
		}
		assign.Topics = append(assign.Topics, assigned)
		elect.Topics = append(elect.Topics, elected)
	}
	response, err := assign.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(response.ErrorCode)
	}
	if err != nil {
		t.Fatalf("assign replicas: %v", err)
	}
	for _, topic := range topics {
		for p := range brokers {
			for c.leaderOrNone(ctx, topic, p) != int(p)+1 {
				if _, err := elect.RequestWith(ctx, client); err != nil {
					t.Fatalf("elect leaders: %v", err)
				}
				if !bus.Pause(ctx, 100*time.Millisecond) {
					t.Fatalf("partition %d of %s is not led by broker %d", p, topic, p+1)
				}
			}
		}
	}
}
