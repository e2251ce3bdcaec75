package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// producer writes the records of each partition in order. Each partition has a lane, which has at
// most one request in progress. Records that arrive during the request, from any call, become the
// next request. Lanes do not wait for one another.
//
// If a batch of a call has failed, nothing more of this call is sent to its partition. The producer
// of sarama does send the later batches. Then, when the first batch was sent again, readers would
// drop its rollups for good, and its frames would be late.
//
// The producer is not idempotent: a batch whose acknowledgement was lost is written again, after
// records that were written in the meantime. Readers recognise repeats.
type producer struct {
	client      sarama.Client
	leaders     *leaders
	guard       *partitionGuard
	compression sarama.CompressionCodec
	limit       int             // maximum size in bytes of a batch with more than one record
	timeout     time.Duration   // the delivery timeout
	closing     context.Context // when it ends, all records that wait fail

	running sync.WaitGroup // lanes that are running
	mu      sync.Mutex
	lanes   map[topicPartition]*lane
}

const (
	// largestBatch is the largest batch of sarama's own producer.
	largestBatch = 1 << 20
	// produceVersion is the version of the request, which Kafka 2.1 and later understand.
	produceVersion = 7
	// produceTimeout is how long a broker may wait for the in-sync replicas.
	produceTimeout = 3 * time.Second
)

func newProducer(closing context.Context, client sarama.Client, guard *partitionGuard, opts bus.PublisherOptions) *producer {
	return &producer{
		client:      client,
		leaders:     newLeaders(client.Config()),
		guard:       guard,
		compression: client.Config().Producer.Compression,
		limit:       min(cmp.Or(opts.BatchBytes, largestBatch), opts.MaxMessageBytes, largestBatch),
		timeout:     opts.DeliveryTimeout,
		closing:     closing,
		lanes:       make(map[topicPartition]*lane),
	}
}

type topicPartition struct {
	topic     string
	partition int32
}

// call is one call of Publish.
type call struct {
	ctx  context.Context
	open sync.WaitGroup // parts whose result is not known yet

	mu     sync.Mutex
	failed []bus.FailedMessage
}

func (c *call) fail(records []*outgoing, err error) {
	if errors.Is(err, sarama.ErrMessageSizeTooLarge) { // the topic's limit is lower than the publisher's
		err = fmt.Errorf("%w: %w", bus.ErrTooLarge, err)
	}
	err = refusedAccess(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range records {
		c.failed = append(c.failed, bus.FailedMessage{Index: r.index, Err: err})
	}
}

// produce returns the records that have failed, including all that follow them in their
// partitions. If it returns an error, nothing was sent.
func (p *producer) produce(ctx context.Context, topic string, records []*outgoing) ([]bus.FailedMessage, error) {
	c := &call{ctx: ctx}
	parts, err := p.split(c, topic, records)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		c.open.Add(1)
		part.lane.push(part)
	}
	stop := context.AfterFunc(ctx, func() {
		for _, part := range parts {
			part.lane.withdraw(part)
		}
	})
	defer stop()
	c.open.Wait()
	return c.failed, nil
}

// split groups the records of a call by partition. Records without a valid partition fail.
func (p *producer) split(c *call, topic string, records []*outgoing) ([]*part, error) {
	known, err := p.client.Partitions(topic)
	if moved := p.guard.check(topic, known); moved != nil {
		return nil, moved
	}
	if err != nil {
		return nil, fmt.Errorf("publish %d messages to %s: %w", len(records), topic, refusedAccess(noTopic(err)))
	}
	var parts []*part
	index := make(map[int32]*part)
	for _, r := range records {
		partition, err := r.partition(len(known))
		if err != nil {
			c.fail([]*outgoing{r}, err)
			continue
		}
		of := index[partition]
		if of == nil {
			of = &part{call: c, lane: p.lane(topicPartition{topic, partition})}
			index[partition] = of
			parts = append(parts, of)
		}
		of.records = append(of.records, r)
	}
	return parts, nil
}

func (p *producer) lane(at topicPartition) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[at]
	if l == nil {
		l = &lane{producer: p, at: at}
		p.lanes[at] = l
	}
	return l
}

// close closes the connections, after the last call.
func (p *producer) close() {
	p.running.Wait()
	p.leaders.close()
}

// send makes one attempt to write a batch.
func (p *producer) send(at topicPartition, records []*outgoing) error {
	leader, err := p.client.Leader(at.topic, at.partition)
	if err != nil {
		return err
	}
	request := &sarama.ProduceRequest{Version: produceVersion, RequiredAcks: sarama.WaitForAll, Timeout: int32(produceTimeout.Milliseconds())}
	request.AddBatch(at.topic, at.partition, p.batch(records))
	response, err := p.leaders.produce(p.closing, leader.Addr(), request)
	if err != nil {
		return err
	}
	block := response.GetBlock(at.topic, at.partition)
	if block == nil {
		return sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return block.Err
	}
	return nil
}

// batch returns a record batch.
func (p *producer) batch(records []*outgoing) *sarama.RecordBatch {
	now := time.Now()
	b := &sarama.RecordBatch{
		Version:          2,
		Codec:            p.compression,
		CompressionLevel: sarama.CompressionLevelDefault,
		LastOffsetDelta:  int32(len(records) - 1),
		ProducerID:       -1,
		ProducerEpoch:    -1,
		FirstSequence:    -1,
		Records:          make([]*sarama.Record, len(records)),
	}
	for i, r := range records {
		at := now
		if r.target.Time != 0 {
			at = r.target.Time.Time()
		}
		at = at.Truncate(time.Millisecond)
		if i == 0 {
			b.FirstTimestamp, b.MaxTimestamp = at, at
		}
		if at.After(b.MaxTimestamp) {
			b.MaxTimestamp = at
		}
		r.OffsetDelta, r.TimestampDelta = int64(i), at.Sub(b.FirstTimestamp)
		b.Records[i] = &r.Record
	}
	return b
}
