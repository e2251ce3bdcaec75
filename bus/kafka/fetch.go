package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// fetchWait bounds how long a fetch is tried again while a partition has no
// leader, or a new one.
const fetchWait = 10 * time.Second

// ReadPartition hands out the records that a partition holds now, in order. It
// is for what is short: for the rest there is Reader. The error wraps
// bus.ErrNoTopic, bus.ErrUnreachable, or what take returned.
func ReadPartition(ctx context.Context, cfg Config, topic string, partition int32, take func(*message.Message) error) error {
	return withFetcher(ctx, cfg, topic, partition, func(f *fetcher, oldest, end int64) error {
		return f.read(ctx, oldest, end, take)
	})
}

// RecordAt returns the record that a partition holds at an offset, nil where
// there is none: the offset is outside of what the partition holds, or is that
// of a marker. The error wraps bus.ErrNoTopic or bus.ErrUnreachable.
func RecordAt(ctx context.Context, cfg Config, topic string, partition int32, offset int64) (found *message.Message, err error) {
	err = withFetcher(ctx, cfg, topic, partition, func(f *fetcher, oldest, end int64) error {
		if offset < oldest || offset >= end {
			return nil
		}
		return f.read(ctx, offset, offset+1, func(msg *message.Message) error { found = msg; return nil })
	})
	return found, err
}

// LastRecord returns the last record that a partition holds, nil where it holds
// none. Markers of transactions, which readers do not get, may follow it. The
// error wraps bus.ErrNoTopic or bus.ErrUnreachable.
func LastRecord(ctx context.Context, cfg Config, topic string, partition int32) (last *message.Message, err error) {
	err = withFetcher(ctx, cfg, topic, partition, func(f *fetcher, oldest, end int64) error {
		to := end
		for back := int64(1); last == nil && to > oldest; back *= 2 {
			from := max(oldest, end-back)
			if err := f.read(ctx, from, to, func(msg *message.Message) error { last = msg; return nil }); err != nil {
				return err
			}
			to = from
		}
		return nil
	})
	return last, err
}

// withFetcher calls use with a fetcher of a partition, its oldest offset and the
// one after its last.
func withFetcher(ctx context.Context, cfg Config, topic string, partition int32, use func(f *fetcher, oldest, end int64) error) (err error) {
	client, err := connect(cfg, cfg.client())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	f := &fetcher{client, topic, partition}
	oldest, end, err := f.bounds(ctx)
	if err != nil {
		return err
	}
	return use(f, oldest, end)
}

// fetcher reads one partition from its leader.
type fetcher struct {
	client    sarama.Client
	topic     string
	partition int32
}

// bounds returns the oldest offset of the partition and the one after its last.
func (f *fetcher) bounds(ctx context.Context) (oldest, end int64, err error) {
	err = f.again(ctx, func() error {
		if end, err = f.client.GetOffset(f.topic, f.partition, sarama.OffsetNewest); err != nil {
			return fmt.Errorf("find the end: %w", err)
		}
		if oldest, err = f.client.GetOffset(f.topic, f.partition, sarama.OffsetOldest); err != nil {
			return fmt.Errorf("find the oldest offset: %w", err)
		}
		return nil
	})
	return oldest, end, err
}

// read hands out the records of offsets from up to before to.
func (f *fetcher) read(ctx context.Context, from, to int64, take func(*message.Message) error) error {
	for from < to {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s/%d at offset %d: %w", f.topic, f.partition, from, err)
		}
		var batches []*sarama.RecordBatch
		err := f.again(ctx, func() (err error) {
			batches, err = f.batches(from)
			return err
		})
		if err != nil {
			return err
		}
		for _, batch := range batches {
			if err := f.handOut(ctx, batch, from, to, take); err != nil {
				return err
			}
		}
		from = batches[len(batches)-1].LastOffset() + 1
	}
	return nil
}

// errNothing says that a leader answered without a whole batch of records.
var errNothing = errors.New("the leader sends nothing, before the end that it has named")

// batches fetches one batch or more, from that of an offset on.
func (f *fetcher) batches(from int64) (batches []*sarama.RecordBatch, err error) {
	leader, err := f.client.Leader(f.topic, f.partition)
	if err != nil {
		return nil, fmt.Errorf("find the leader: %w", err)
	}
	block, err := fetchBlock(leader, f.topic, f.partition, from)
	if err != nil {
		if _, answered := errors.AsType[sarama.KError](err); !answered {
			leader.Close() //nolint:errcheck // the connection broke; the next attempt opens another
		}
		return nil, fmt.Errorf("fetch offset %d: %w", from, err)
	}
	for _, records := range block.RecordsSet {
		batch := records.RecordBatch
		if batch == nil {
			return nil, fmt.Errorf("fetch offset %d: the record has a format from before Kafka 0.11", from)
		}
		if !batch.PartialTrailingRecord && batch.LastOffset() >= from {
			batches = append(batches, batch)
		}
	}
	if len(batches) == 0 {
		return nil, fmt.Errorf("fetch offset %d: %w", from, errNothing)
	}
	return batches, nil
}

// handOut gives take the records of a batch that are between two offsets.
func (f *fetcher) handOut(ctx context.Context, batch *sarama.RecordBatch, from, to int64, take func(*message.Message) error) error {
	for _, r := range batch.Records {
		offset := batch.FirstOffset + r.OffsetDelta
		if batch.Control || offset < from || offset >= to {
			continue
		}
		at := batch.FirstTimestamp.Add(r.TimestampDelta)
		if batch.LogAppendTime {
			at = batch.MaxTimestamp
		}
		record := &sarama.ConsumerMessage{Topic: f.topic, Partition: f.partition, Offset: offset, Timestamp: at, Key: r.Key, Value: r.Value, Headers: r.Headers}
		msg := newMessage(record)
		msg.SetContext(bus.WithPosition(ctx, positionOf(record)))
		if err := take(msg); err != nil {
			return fmt.Errorf("%s/%d, offset %d: %w", f.topic, f.partition, offset, err)
		}
	}
	return nil
}

// again tries a request again while the partition has no leader, or has a new
// one. It asks only once for a topic that does not exist.
func (f *fetcher) again(ctx context.Context, request func() error) error {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	for {
		err := request()
		if err == nil {
			return nil
		}
		if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			err = fmt.Errorf("%w: %w", bus.ErrNoTopic, err)
		}
		err = fmt.Errorf("read %s/%d: %w", f.topic, f.partition, err)
		if errors.Is(err, bus.ErrNoTopic) || !mayHaveMovedLeader(err) || !bus.Pause(ctx, attemptPause) {
			return err
		}
		if refreshErr := f.client.RefreshMetadata(f.topic); refreshErr != nil && ctx.Err() != nil {
			return errors.Join(err, refreshErr)
		}
	}
}

// mayHaveMovedLeader: everything but the answer of a leader that knows better.
func mayHaveMovedLeader(err error) bool {
	var answer sarama.KError
	if !errors.As(err, &answer) {
		return true // the connection broke
	}
	switch answer {
	case sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrReplicaNotAvailable, sarama.ErrOffsetNotAvailable,
		sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrKafkaStorageError, sarama.ErrRequestTimedOut:
		return true
	}
	return false
}

// fetchBlock asks a partition's leader for its records from an offset on.
func fetchBlock(leader *sarama.Broker, topic string, partition int32, from int64) (*sarama.FetchResponseBlock, error) {
	request := &sarama.FetchRequest{Version: 11, MaxWaitTime: 500, MinBytes: 1, MaxBytes: fetchBytes} // of Kafka 2.8
	request.AddBlock(topic, partition, from, fetchBytes, -1)
	response, err := leader.Fetch(request)
	if err != nil {
		return nil, err
	}
	block := response.GetBlock(topic, partition)
	if block == nil {
		return nil, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return nil, block.Err
	}
	return block, nil
}
