package localkafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	readyTimeout = 90 * time.Second
	readyPoll    = 250 * time.Millisecond
	// attempt is the timeout of one request to a broker that is starting.
	attempt = 5 * time.Second
)

// Ready waits until all nodes work. It needs a new topic to find out: a broker that died
// is listed for a long time, and its port may be open before it works.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if err := c.await(ctx, fmt.Sprintf("node %d to listen", n.ID), n.answers); err != nil {
			return err
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MetadataMinAge(readyPoll), kgo.RequestRetries(0))
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	defer client.Close()
	probe := probe{client: client, nodes: len(c.nodes), topic: fmt.Sprintf("oona-ready-%d", time.Now().UnixNano())}
	if err := c.await(ctx, "a topic to be created", probe.create); err != nil {
		return err
	}
	return errors.Join(
		errors.Join(
			c.await(ctx, "a topic to be in sync on all brokers", probe.inSync),
			c.await(ctx, "records to be acknowledged by all brokers", probe.produce),
			c.await(ctx, "the coordinator of a group", probe.coordinator),
		),
		c.await(ctx, "a topic to be deleted", probe.remove),
	)
}

// await calls ask until it returns no error, ctx ends, or a node ends.
func (c *Cluster) await(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		asking, cancel := context.WithTimeout(ctx, attempt)
		err := ask(asking)
		cancel()
		if err == nil {
			return nil
		}
		for _, n := range c.nodes {
			if !n.running() {
				return fmt.Errorf("waiting for %s: node %d does not run (log: %s):\n%s", what, n.ID, n.logFile(), n.lastLog())
			}
		}
		if !sleep(ctx, readyPoll) {
			return fmt.Errorf("waiting for %s: %w; logs are in %s (%w)", what, ctx.Err(), c.opts.Dir, err)
		}
	}
}

func (n *node) answers(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", n.address())
	if err != nil {
		return err
	}
	return conn.Close()
}

// probe is a topic for testing the cluster.
type probe struct {
	client *kgo.Client
	nodes  int
	topic  string
}

func (p probe) create(ctx context.Context) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = p.topic, int32(p.nodes), int16(p.nodes)
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	request.TimeoutMillis = int32(attempt.Milliseconds())
	response, err := request.RequestWith(ctx, p.client)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

// inSync returns an error unless each broker knows that the topic is in sync on all
// brokers.
func (p probe) inSync(ctx context.Context) error {
	for _, broker := range p.client.SeedBrokers() {
		if err := p.knows(ctx, broker); err != nil {
			return err
		}
	}
	return nil
}

func (p probe) knows(ctx context.Context, broker *kgo.Broker) error {
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &p.topic
	request.Topics = append(request.Topics, topic)
	answer, err := broker.Request(ctx, request)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.MetadataResponse)
	if err := kerr.ErrorForCode(response.Topics[0].ErrorCode); err != nil {
		return err
	}
	if len(response.Brokers) != p.nodes {
		return fmt.Errorf("a broker knows %d of %d brokers", len(response.Brokers), p.nodes)
	}
	partitions := response.Topics[0].Partitions
	if len(partitions) != p.nodes {
		return fmt.Errorf("a broker knows %d of %d partitions", len(partitions), p.nodes)
	}
	for _, partition := range partitions {
		if len(partition.ISR) != p.nodes {
			return fmt.Errorf("partition %d is in sync on %d of %d brokers", partition.Partition, len(partition.ISR), p.nodes)
		}
	}
	return nil
}

func (p probe) produce(ctx context.Context) error {
	var records []*kgo.Record
	for partition := range int32(p.nodes) {
		records = append(records, &kgo.Record{Topic: p.topic, Partition: partition, Value: []byte("ready?")})
	}
	return p.client.ProduceSync(ctx, records...).FirstErr()
}

func (p probe) coordinator(ctx context.Context) error {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey = p.topic
	request.CoordinatorKeys = []string{p.topic}
	response, err := request.RequestWith(ctx, p.client)
	if err != nil {
		return err
	}
	if len(response.Coordinators) > 0 {
		return kerr.ErrorForCode(response.Coordinators[0].ErrorCode)
	}
	return kerr.ErrorForCode(response.ErrorCode)
}

func (p probe) remove(ctx context.Context) error {
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &p.topic
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.Topics = append(request.Topics, topic)
	request.TopicNames = []string{p.topic}
	response, err := request.RequestWith(ctx, p.client)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil
	}
	return err
}
