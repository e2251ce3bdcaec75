package scenarios

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/localkafka"
)

// cluster is the three brokers, with requests that bypass Oona.
type cluster struct {
	*localkafka.Cluster
	options localkafka.Options
}

// recover starts the brokers that were killed, and waits until all are ready.
func (c *cluster) recover(t *testing.T, ctx context.Context) {
	t.Helper()
	brokers, err := localkafka.Start(ctx, c.options)
	if err != nil {
		t.Fatal(err)
	}
	c.Cluster = brokers
}

func (c *cluster) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.Addrs()...), kgo.MetadataMinAge(250*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// extents returns the first offset and the end of each partition of a topic.
func (c *cluster) extents(t *testing.T, ctx context.Context, topic string) (first, end map[int32]int64) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	partitions := c.describe(t, ctx, client, topic).Partitions
	offsets := func(timestamp int64) map[int32]int64 {
		request := kmsg.NewPtrListOffsetsRequest()
		request.ReplicaID = -1
		asked := kmsg.NewListOffsetsRequestTopic()
		asked.Topic = topic
		for _, p := range partitions {
			one := kmsg.NewListOffsetsRequestTopicPartition()
			one.Partition, one.Timestamp = p.Partition, timestamp
			asked.Partitions = append(asked.Partitions, one)
		}
		request.Topics = append(request.Topics, asked)
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[int32]int64)
		for _, topic := range response.Topics {
			for _, p := range topic.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					t.Fatalf("offsets of %s/%d: %v", topic.Topic, p.Partition, err)
				}
				found[p.Partition] = p.Offset
			}
		}
		if len(found) != len(partitions) {
			t.Fatalf("%d of %d partitions of %s have offsets", len(found), len(partitions), topic)
		}
		return found
	}
	return offsets(-2), offsets(-1)
}

func (c *cluster) describe(t *testing.T, ctx context.Context, client *kgo.Client, topic string) kmsg.MetadataResponseTopic {
	t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("describe %s: %v", topic, err)
	}
	return response.Topics[0]
}

// logRecord is a record of a partition.
type logRecord struct {
	partition int32
	offset    int64
	appended  oona.Micros
	headers   map[string]string
	value     []byte
}

// dump reads a whole topic, each partition in order.
func (c *cluster) dump(t *testing.T, ctx context.Context, topic string) map[int32][]logRecord {
	t.Helper()
	first, end := c.extents(t, ctx, topic)
	from := make(map[int32]kgo.Offset)
	left := int64(0)
	for p, offset := range first {
		if offset < end[p] {
			from[p] = kgo.NewOffset().At(offset)
			left += end[p] - offset
		}
	}
	records := make(map[int32][]logRecord)
	if left == 0 {
		return records
	}
	client := c.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	defer client.Close()
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d records of %s were not read: %v", left, topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := make(map[string]string)
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			records[r.Partition] = append(records[r.Partition], logRecord{r.Partition, r.Offset, oona.MicrosOf(r.Timestamp), headers, r.Value})
			left--
		})
	}
	return records
}

// write appends records to a topic without ingest.
func (c *cluster) write(t *testing.T, ctx context.Context, topic string, values ...[]byte) {
	t.Helper()
	client := c.client(t, kgo.RequiredAcks(kgo.AllISRAcks()))
	defer client.Close()
	var records []*kgo.Record
	for i, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: value})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// committed returns the committed offsets of a group.
func (c *cluster) committed(t *testing.T, ctx context.Context, group, topic string, partitions int32) map[int32]int64 {
	t.Helper()
	offsets := make(map[int32]int64)
	for p, commit := range c.commits(t, ctx, group, topic, partitions) {
		offsets[p] = commit.Offset
	}
	return offsets
}

// commits returns the commits of a group.
func (c *cluster) commits(t *testing.T, ctx context.Context, group, topic string, partitions int32) map[int32]bus.Commit {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	asked := kmsg.NewOffsetFetchRequestTopic()
	asked.Topic = topic
	asked8 := kmsg.NewOffsetFetchRequestGroupTopic()
	asked8.Topic = topic
	for p := range partitions {
		asked.Partitions = append(asked.Partitions, p)
		asked8.Partitions = append(asked8.Partitions, p)
	}
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group, request.Topics = group, []kmsg.OffsetFetchRequestTopic{asked}
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group, one.Topics = group, []kmsg.OffsetFetchRequestGroupTopic{asked8}
	request.Groups = append(request.Groups, one)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	commits := make(map[int32]bus.Commit)
	note := func(partition int32, offset int64, metadata *string) {
		commits[partition] = bus.Commit{Offset: offset}
		if metadata != nil {
			commits[partition] = bus.Commit{Offset: offset, Metadata: *metadata}
		}
	}
	for _, topic := range response.Topics {
		for _, p := range topic.Partitions {
			note(p.Partition, p.Offset, p.Metadata)
		}
	}
	for _, group := range response.Groups {
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				note(p.Partition, p.Offset, p.Metadata)
			}
		}
	}
	return commits
}

// deleteRecords moves the beginning of a partition's log, as retention does.
func (c *cluster) deleteRecords(t *testing.T, ctx context.Context, topic string, before map[int32]int64) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 10_000
	asked := kmsg.NewDeleteRecordsRequestTopic()
	asked.Topic = topic
	for p, offset := range before {
		one := kmsg.NewDeleteRecordsRequestTopicPartition()
		one.Partition, one.Offset = p, offset
		asked.Partitions = append(asked.Partitions, one)
	}
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range response.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				t.Fatalf("delete records of %s/%d: %v", topic.Topic, p.Partition, err)
			}
		}
	}
}

// deleteTopic deletes a topic, and returns when no broker lists it.
func (c *cluster) deleteTopic(t *testing.T, ctx context.Context, topic string) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = 10_000
	asked := kmsg.NewDeleteTopicsRequestTopic()
	asked.Topic = &topic
	request.Topics, request.TopicNames = append(request.Topics, asked), []string{topic}
	response, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete %s: %v", topic, err)
	}
	for _, broker := range client.SeedBrokers() {
		for c.knows(t, ctx, broker, topic) {
			if !bus.Pause(ctx, 50*time.Millisecond) {
				t.Fatalf("a broker still knows %s, which was deleted", topic)
			}
		}
	}
}

// knows reports whether a broker knows a topic.
func (c *cluster) knows(t *testing.T, ctx context.Context, broker *kgo.Broker, topic string) bool {
	t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	response, err := broker.Request(ctx, request)
	if err != nil {
		t.Fatalf("ask a broker for %s: %v", topic, err)
	}
	return response.(*kmsg.MetadataResponse).Topics[0].ErrorCode != kerr.UnknownTopicOrPartition.Code
}

// deleteGroup deletes a group with its offsets. Its members must have left.
func (c *cluster) deleteGroup(t *testing.T, ctx context.Context, group string) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	for {
		request := kmsg.NewPtrDeleteGroupsRequest()
		request.Groups = []string{group}
		response, err := request.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(response.Groups[0].ErrorCode)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, kerr.NonEmptyGroup) { // a killed member stays until its session ends
			t.Fatalf("delete the group: %v", err)
		}
		if !bus.Pause(ctx, 250*time.Millisecond) {
			t.Fatal("the group did not become empty")
		}
	}
}

// addPartitions adds partitions to a topic.
func (c *cluster) addPartitions(t *testing.T, ctx context.Context, topic string, count int32) {
	t.Helper()
	client := c.client(t)
	defer client.Close()
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.TimeoutMillis = 10_000
	asked := kmsg.NewCreatePartitionsRequestTopic()
	asked.Topic, asked.Count = topic, count
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("add partitions: %v", err)
	}
}
