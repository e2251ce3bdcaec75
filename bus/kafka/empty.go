package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// Empty reports whether a partition holds no record from one offset to another:
// readers get nothing of the markers that end transactions, and nothing of what
// was deleted.
func Empty(ctx context.Context, cfg Config, topic string, partition int32, from, to int64) (_ bool, err error) {
	client, err := connect(cfg, cfg.client())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	for began := time.Now(); ; {
		empty, err := emptyAt(ctx, client, topic, partition, from, to)
		if err == nil || time.Since(began) > cfg.SettleTime() || !bus.Pause(ctx, lookPause) {
			return empty, err
		}
		// The leader may have moved.
		client.RefreshMetadata(topic) //nolint:errcheck // where this fails too, so does the next attempt
	}
}

func emptyAt(ctx context.Context, client sarama.Client, topic string, partition int32, from, to int64) (bool, error) {
	oldest, err := client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return false, fmt.Errorf("find the oldest offset of %s/%d: %w", topic, partition, err)
	}
	leader, err := client.Leader(topic, partition)
	if err != nil {
		return false, fmt.Errorf("find the leader of %s/%d: %w", topic, partition, err)
	}
	for from = max(from, oldest); from < to; {
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("look into %s/%d: %w", topic, partition, err)
		}
		next, err := skipEmptyBatches(leader, topic, partition, from)
		if err != nil {
			return false, fmt.Errorf("look into %s/%d at offset %d: %w", topic, partition, from, err)
		}
		if next == from {
			return false, nil
		}
		from = next
	}
	return true, nil
}

// skipEmptyBatches returns the first offset, from or above, that may hold a record.
func skipEmptyBatches(leader *sarama.Broker, topic string, partition int32, from int64) (next int64, err error) {
	block, err := fetchBlock(leader, topic, partition, from)
	if err != nil {
		return from, err
	}
	next = from
	for _, records := range block.RecordsSet {
		batch := records.RecordBatch
		if batch == nil {
			return next, nil
		}
		for _, r := range batch.Records {
			if !batch.Control && batch.FirstOffset+r.OffsetDelta >= from {
				return next, nil
			}
		}
		if batch.PartialTrailingRecord {
			return next, nil
		}
		next = max(next, batch.LastOffset()+1)
	}
	return next, nil
}
