package bus

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"
)

// orderedProducer sends the batches of a partition one after the other, each
// once the one before is acknowledged. Within a call nothing is sent to a
// partition behind a batch that has failed: sarama's own producer does send it,
// and a reader that drops what is not above the highest trigger would then drop
// the first batch for good when it is tried again.
//
// It is not idempotent: a batch whose acknowledgement was lost is written again,
// in its place or behind what came later, and readers know repeats.
type orderedProducer struct {
	client      sarama.Client
	partitioner sarama.PartitionerConstructor
	compression sarama.CompressionCodec
	limit       int // bytes of a batch of more than one record
	patience    time.Duration
	closing     context.Context // retries end with it
}

const (
	// orderedBatch is as many bytes as sarama's producer would send in one.
	orderedBatch = 1 << 20
	// produceVersion is of the request; Kafka 2.1 and later understand it.
	produceVersion = 7
)

// SendMessages returns sarama.ProducerErrors of the records that have failed, and
// of all behind them in their partitions, which were not sent.
func (p *orderedProducer) SendMessages(records []*sarama.ProducerMessage) error {
	var failed sarama.ProducerErrors
	fail := func(records []*sarama.ProducerMessage, err error) {
		for _, r := range records {
			failed = append(failed, &sarama.ProducerError{Msg: r, Err: err})
		}
	}
	var order []topicPartition
	queues := make(map[topicPartition][]*sarama.ProducerMessage)
	for _, r := range records {
		at, err := p.place(r)
		if err != nil {
			fail([]*sarama.ProducerMessage{r}, err)
			continue
		}
		if queues[at] == nil {
			order = append(order, at)
		}
		queues[at] = append(queues[at], r)
	}
	for _, at := range order {
		for rest := queues[at]; len(rest) > 0; {
			n := p.fits(rest)
			if err := p.produce(at, rest[:n]); err != nil {
				fail(rest, err)
				break
			}
			rest = rest[n:]
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// Close leaves the client to its owner.
func (p *orderedProducer) Close() error { return nil }

type topicPartition struct {
	topic     string
	partition int32
}

func (p *orderedProducer) place(r *sarama.ProducerMessage) (topicPartition, error) {
	partitions, err := p.client.Partitions(r.Topic)
	if err != nil {
		return topicPartition{}, err
	}
	partition, err := p.partitioner(r.Topic).Partition(r, int32(len(partitions)))
	if err == nil && int(partition) >= len(partitions) {
		err = sarama.ErrInvalidPartition
	}
	return topicPartition{r.Topic, partition}, err
}

// fits returns how many of the records make the next batch, at least one.
func (p *orderedProducer) fits(records []*sarama.ProducerMessage) int {
	size := batchOverhead
	for n, r := range records {
		if size += r.ByteSize(2); n > 0 && size > p.limit {
			return n
		}
	}
	return len(records)
}

// produce sends a batch until it is acknowledged, for as long as there is hope
// and patience.
func (p *orderedProducer) produce(at topicPartition, records []*sarama.ProducerMessage) error {
	batch, err := p.batch(records)
	if err != nil {
		return err
	}
	began := time.Now()
	for attempt := 1; ; attempt++ {
		err := p.attempt(at, batch)
		if err == nil || !worthAnotherTry(err) || time.Since(began) > p.patience {
			return err
		}
		if !sleep(p.closing, backoff(attempt)) {
			return errors.Join(err, ErrClosed)
		}
		// Where this fails, the next attempt finds out.
		_ = p.client.RefreshMetadata(at.topic)
	}
}

func (p *orderedProducer) attempt(at topicPartition, batch *sarama.RecordBatch) error {
	leader, err := p.client.Leader(at.topic, at.partition)
	if err != nil {
		return err
	}
	request := &sarama.ProduceRequest{Version: produceVersion, RequiredAcks: sarama.WaitForAll, Timeout: int32(produceTimeout.Milliseconds())}
	request.AddBatch(at.topic, at.partition, batch)
	response, err := leader.Produce(request)
	if err != nil {
		_ = leader.Close() // the connection is dead; the next attempt opens another
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

// worthAnotherTry is false where the bus has said that it will not take a batch.
func worthAnotherTry(err error) bool {
	if errors.Is(err, sarama.ErrClosedClient) {
		return false
	}
	var answer sarama.KError
	if !errors.As(err, &answer) {
		return true // the connection broke, or there is none
	}
	switch answer {
	case sarama.ErrInvalidMessage, // its checksum is wrong: it was damaged on the way
		sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition,
		sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable, sarama.ErrReplicaNotAvailable, sarama.ErrNetworkException,
		sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrKafkaStorageError,
		sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch:
		return true
	}
	return false
}

// batch makes one record batch.
func (p *orderedProducer) batch(records []*sarama.ProducerMessage) (*sarama.RecordBatch, error) {
	now := time.Now()
	b := &sarama.RecordBatch{
		Version:          2,
		Codec:            p.compression,
		CompressionLevel: sarama.CompressionLevelDefault,
		LastOffsetDelta:  int32(len(records) - 1),
		ProducerID:       -1,
		ProducerEpoch:    -1,
		FirstSequence:    -1,
	}
	for i, r := range records {
		record := &sarama.Record{OffsetDelta: int64(i)}
		var err error
		if r.Key != nil {
			if record.Key, err = r.Key.Encode(); err != nil {
				return nil, err
			}
		}
		if record.Value, err = r.Value.Encode(); err != nil {
			return nil, err
		}
		for h := range r.Headers {
			record.Headers = append(record.Headers, &r.Headers[h])
		}
		at := r.Timestamp
		if at.IsZero() {
			at = now
		}
		at = at.Truncate(time.Millisecond)
		if i == 0 {
			b.FirstTimestamp, b.MaxTimestamp = at, at
		}
		if at.After(b.MaxTimestamp) {
			b.MaxTimestamp = at
		}
		record.TimestampDelta = at.Sub(b.FirstTimestamp)
		b.Records = append(b.Records, record)
	}
	return b, nil
}
