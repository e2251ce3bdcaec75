package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// Extents implements bus.Admin. It asks for the first offsets before the last ones, so that a first
// offset is never above the end.
func (b *Bus) Extents(ctx context.Context, topics ...string) (_ map[string][]bus.Extent, err error) {
	client, err := connect(b.cfg, b.cfg.client())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	partitions, err := partitionsIn(ctx, b.cfg, client, topics...)
	if err != nil {
		return nil, err
	}
	starts, err := offsetsAt(ctx, b.cfg, client, sarama.OffsetOldest, partitions)
	if err != nil {
		return nil, err
	}
	ends, err := offsetsAt(ctx, b.cfg, client, sarama.OffsetNewest, partitions)
	if err != nil {
		return nil, err
	}
	extents := make(map[string][]bus.Extent, len(topics))
	for _, p := range partitions {
		extents[p.topic] = append(extents[p.topic], bus.Extent{Start: starts[p], End: ends[p]})
	}
	return extents, nil
}

// Commits implements bus.Admin.
func (b *Bus) Commits(ctx context.Context, group, topic string) (_ []bus.Commit, err error) {
	of := &offsets{cfg: b.cfg, group: group}
	defer func() { err = errors.Join(err, of.close()) }()
	client, err := of.connection()
	if err != nil {
		return nil, err
	}
	partitions, err := partitionsOf(ctx, b.cfg, client, topic)
	if err != nil {
		return nil, err
	}
	return of.fetch(ctx, topic, partitions...)
}

// awaitTopic calls ask, and calls it again while it fails because the broker does not know the
// topic: a topic that was just created may not be known to all brokers. After Config.Settle, it
// returns an error that wraps bus.ErrNoTopic.
func (c Config) awaitTopic(ctx context.Context, topic string, ask func() error) error {
	for began := time.Now(); ; {
		err := ask()
		if err == nil {
			return nil
		}
		unknown := errors.Is(err, sarama.ErrUnknownTopicOrPartition)
		if !unknown || time.Since(began) > c.SettleTime() || !bus.Pause(ctx, lookPause) {
			return fmt.Errorf("look at topic %s: %w", topic, refusedAccess(noTopic(err)))
		}
	}
}

// partitionsOf returns the partitions of a topic.
func partitionsOf(ctx context.Context, cfg Config, client sarama.Client, topic string) (partitions []int32, err error) {
	err = cfg.awaitTopic(ctx, topic, func() (err error) {
		partitions, err = client.Partitions(topic)
		return err
	})
	return partitions, err
}

// partitionsIn returns the partitions of topics, in the order of their numbers.
func partitionsIn(ctx context.Context, cfg Config, client sarama.Client, topics ...string) (all []topicPartition, err error) {
	for _, topic := range topics {
		partitions, err := partitionsOf(ctx, cfg, client, topic)
		if err != nil {
			return nil, err
		}
		for _, p := range partitions {
			all = append(all, topicPartition{topic, p})
		}
	}
	return all, nil
}

// offsetsAt returns an offset for each partition: the one for sarama.OffsetNewest or
// sarama.OffsetOldest, or the first offset at or after a time in milliseconds. The last one is -1 if
// there is no such record. A leader that was just elected may not answer yet, so offsetsAt repeats
// the request for some time.
func offsetsAt(ctx context.Context, cfg Config, client sarama.Client, at int64, partitions []topicPartition) (map[topicPartition]int64, error) {
	found := make(map[topicPartition]int64, len(partitions))
	for began := time.Now(); ; {
		err := askOffsets(ctx, client, at, partitions, found)
		if err == nil {
			return found, nil
		}
		if err = refusedAccess(err); errors.Is(err, bus.ErrDenied) {
			return nil, err
		}
		// Refresh even before giving up. If a leader accepts requests but does not answer,
		// the time is over after one attempt, and the caller may ask again.
		var missing []topicPartition
		topics := make(map[string]bool)
		for _, p := range partitions {
			if _, known := found[p]; !known {
				missing, topics[p.topic] = append(missing, p), true
			}
		}
		partitions = missing
		for topic := range topics {
			client.RefreshMetadata(topic) //nolint:errcheck // if this fails, so does the next attempt
		}
		if time.Since(began) > cfg.SettleTime() || !bus.Pause(ctx, lookPause) {
			if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
				err = errors.Join(err, ended)
			}
			return nil, err
		}
	}
}

// askOffsets sends one request to each leader, all at the same time, and adds the offsets to found.
// It returns an error if an offset is missing.
func askOffsets(ctx context.Context, client sarama.Client, at int64, partitions []topicPartition, found map[topicPartition]int64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("find offsets: %w", err)
	}
	var failed []error
	requests := make(map[*sarama.Broker]*sarama.OffsetRequest)
	asked := make(map[*sarama.Broker][]topicPartition)
	for _, p := range partitions {
		leader, err := client.Leader(p.topic, p.partition)
		if err != nil {
			failed = append(failed, fmt.Errorf("find the leader of %s/%d: %w", p.topic, p.partition, err))
			continue
		}
		if requests[leader] == nil {
			requests[leader] = sarama.NewOffsetRequest(client.Config().Version)
		}
		requests[leader].AddBlock(p.topic, p.partition, at, 1)
		asked[leader] = append(asked[leader], p)
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for leader, request := range requests {
		asking.Go(func() {
			response, err := leader.GetAvailableOffsets(request)
			if err != nil {
				leader.Close() //nolint:errcheck // so that the next attempt connects again
			}
			mu.Lock()
			defer mu.Unlock()
			for _, p := range asked[leader] {
				if offset, err := offsetIn(response, p, err); err == nil {
					found[p] = offset
				} else {
					failed = append(failed, fmt.Errorf("find an offset of %s/%d: %w", p.topic, p.partition, err))
				}
			}
		})
	}
	asking.Wait()
	if len(failed) > 0 {
		return fmt.Errorf("%w (%d of the partitions' offsets are not known)", failed[0], len(failed))
	}
	return nil
}

func offsetIn(response *sarama.OffsetResponse, of topicPartition, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	block := response.GetBlock(of.topic, of.partition)
	if block == nil {
		return 0, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return 0, block.Err
	}
	return block.Offset, nil
}
