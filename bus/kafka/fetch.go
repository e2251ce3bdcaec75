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

// fetchWait is for how long a request is repeated while a partition has no leader, or has a new one.
const fetchWait = 10 * time.Second

// Read implements bus.Admin.
func (b *Bus) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) (err error) {
	client, err := connect(b.cfg, b.cfg.client())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	f := &fetcher{client, topic, r.Partition, fetchWait + b.cfg.Patience}
	oldest, end, err := f.bounds(ctx)
	if err != nil {
		return err
	}
	return f.read(ctx, max(r.From, oldest), min(r.End, end), take)
}

// fetcher reads one partition from its leader.
type fetcher struct {
	client    sarama.Client
	topic     string
	partition int32
	wait      time.Duration // how long to wait for a leader
}

// bounds returns the oldest offset of the partition and the offset after its last record.
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

// read calls take with the records of offsets from (inclusive) to to (exclusive).
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
		if errors.Is(err, sarama.ErrOffsetOutOfRange) { // deleted since the range was looked up
			oldest, _, err := f.bounds(ctx)
			if err != nil {
				return err
			}
			if oldest > from {
				from = oldest
				continue
			}
		}
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

// errNothing is returned if the answer of a leader has no complete batch.
var errNothing = errors.New("the leader sends no records, although its log has them")

// batches fetches at least one batch, beginning with the batch that has the given offset.
func (f *fetcher) batches(from int64) (batches []*sarama.RecordBatch, err error) {
	leader, err := f.client.Leader(f.topic, f.partition)
	if err != nil {
		return nil, fmt.Errorf("find the leader: %w", err)
	}
	block, err := fetchBlock(leader, f.topic, f.partition, from)
	if err != nil {
		if _, answered := errors.AsType[sarama.KError](err); !answered {
			leader.Close() //nolint:errcheck // the connection is broken; the next attempt opens another one
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

// handOut calls take with the records of a batch that are between two offsets.
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

// again repeats a request while the partition has no leader, or has a new one. It does not repeat a
// request if the topic does not exist.
func (f *fetcher) again(ctx context.Context, request func() error) error {
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	for {
		err := request()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("read %s/%d: %w", f.topic, f.partition, refusedAccess(noTopic(err)))
		if errors.Is(err, bus.ErrNoTopic) || !passes(err) || !bus.Pause(ctx, attemptPause) {
			return err
		}
		if refreshErr := f.client.RefreshMetadata(f.topic); refreshErr != nil && ctx.Err() != nil {
			return errors.Join(err, refreshErr)
		}
	}
}

// fetchBlock asks a partition's leader for records, beginning with an offset.
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
