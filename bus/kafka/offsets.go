package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// Extents implements bus.Admin. It asks for the beginnings first, so that none is above
// the end.
func (b *Bus) Extents(ctx context.Context, topics ...string) (_ map[string][]bus.Extent, err error) {
	client, err := connect(b.cfg, b.cfg.client())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	starts, err := offsetsOf(ctx, b.cfg, client, sarama.OffsetOldest, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := offsetsOf(ctx, b.cfg, client, sarama.OffsetNewest, topics...)
	if err != nil {
		return nil, err
	}
	extents := make(map[string][]bus.Extent, len(topics))
	for topic, of := range starts { // without partitions that were just added
		extents[topic] = make([]bus.Extent, len(of))
		for p, start := range of {
			extents[topic][p] = bus.Extent{Start: start, End: ends[topic][p]}
		}
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
	found, err := of.fetch(ctx, topic, partitions...)
	if err != nil {
		return nil, err
	}
	commits := make([]bus.Commit, len(partitions))
	for i, p := range partitions {
		commits[i] = found[p]
	}
	return commits, nil
}

// awaitTopic calls ask again while it fails because the broker does not know the topic:
// not all brokers know a topic that was created a moment ago. After the time to settle,
// it returns an error that wraps bus.ErrNoTopic.
func (c Config) awaitTopic(ctx context.Context, topic string, ask func() error) error {
	for began := time.Now(); ; {
		err := ask()
		if err == nil {
			return nil
		}
		unknown := errors.Is(err, sarama.ErrUnknownTopicOrPartition)
		if !unknown || time.Since(began) > c.SettleTime() || !bus.Pause(ctx, lookPause) {
			return fmt.Errorf("look at topic %s: %w", topic, noTopic(err))
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

// offsetsOf returns an offset of each partition of topics, as offsetsAt does.
func offsetsOf(ctx context.Context, cfg Config, client sarama.Client, at int64, topics ...string) (map[string]map[int32]int64, error) {
	all := make(map[string][]int32, len(topics))
	for _, topic := range topics {
		var err error
		if all[topic], err = partitionsOf(ctx, cfg, client, topic); err != nil {
			return nil, err
		}
	}
	return offsetsAt(ctx, cfg, client, at, all)
}

// offsetsAt returns an offset of partitions: sarama.OffsetNewest, sarama.OffsetOldest, or
// the first offset at or after a time in milliseconds, which is -1 without such a record.
// A leader that was just elected may not answer yet, so it is asked again for a while.
func offsetsAt(ctx context.Context, cfg Config, client sarama.Client, at int64, missing map[string][]int32) (map[string]map[int32]int64, error) {
	offsets := make(map[string]map[int32]int64, len(missing))
	for topic, partitions := range missing {
		offsets[topic] = make(map[int32]int64, len(partitions))
	}
	for began := time.Now(); ; {
		found, err := askOffsets(ctx, client, missing, at)
		for topic := range missing {
			maps.Copy(offsets[topic], found[topic])
		}
		if err == nil {
			return offsets, nil
		}
		// Refresh before giving up, too: a leader that accepts requests and does not
		// answer takes longer than the wait, and the caller may ask again.
		missing = without(missing, offsets)
		for topic := range missing {
			client.RefreshMetadata(topic) //nolint:errcheck // if this fails, the next attempt fails, too
		}
		if time.Since(began) > cfg.SettleTime() || !bus.Pause(ctx, lookPause) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// without returns the partitions that have no offset.
func without(partitions map[string][]int32, offsets map[string]map[int32]int64) map[string][]int32 {
	left := make(map[string][]int32)
	for topic, all := range partitions {
		for _, p := range all {
			if _, found := offsets[topic][p]; !found {
				left[topic] = append(left[topic], p)
			}
		}
	}
	return left
}

// askOffsets asks all leaders at the same time, once, for an offset of partitions. It
// returns the offsets that it has found with every error.
func askOffsets(ctx context.Context, client sarama.Client, partitions map[string][]int32, at int64) (map[string]map[int32]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("find offsets: %w", err)
	}
	var failed []error
	requests := make(map[*sarama.Broker]*sarama.OffsetRequest)
	asked := make(map[*sarama.Broker]map[string][]int32)
	for topic, all := range partitions {
		for _, p := range all {
			leader, err := client.Leader(topic, p)
			if err != nil {
				failed = append(failed, fmt.Errorf("find the leader of %s/%d: %w", topic, p, err))
				continue
			}
			if requests[leader] == nil {
				requests[leader], asked[leader] = sarama.NewOffsetRequest(client.Config().Version), make(map[string][]int32)
			}
			requests[leader].AddBlock(topic, p, at, 1)
			asked[leader][topic] = append(asked[leader][topic], p)
		}
	}
	var (
		mu     sync.Mutex
		found  = make(map[string]map[int32]int64)
		asking sync.WaitGroup
	)
	for leader, request := range requests {
		asking.Go(func() {
			response, err := leader.GetAvailableOffsets(request)
			if err != nil {
				leader.Close() //nolint:errcheck // so that the next attempt connects again
			}
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, keepOffsets(found, asked[leader], response, err)...)
		})
	}
	asking.Wait()
	if len(failed) > 0 {
		return found, fmt.Errorf("%w (%d of the partitions' offsets are not known)", failed[0], len(failed))
	}
	return found, nil
}

// keepOffsets adds the offsets of a leader's answer to found, and returns an error for
// each partition without an offset.
func keepOffsets(found map[string]map[int32]int64, asked map[string][]int32, response *sarama.OffsetResponse, err error) (failed []error) {
	for topic, partitions := range asked {
		if found[topic] == nil {
			found[topic] = make(map[int32]int64, len(partitions))
		}
		for _, p := range partitions {
			offset, err := offsetIn(response, topic, p, err)
			if err != nil {
				failed = append(failed, fmt.Errorf("find an offset of %s/%d: %w", topic, p, err))
				continue
			}
			found[topic][p] = offset
		}
	}
	return failed
}

func offsetIn(response *sarama.OffsetResponse, topic string, partition int32, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	block := response.GetBlock(topic, partition)
	if block == nil {
		return 0, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return 0, block.Err
	}
	return block.Offset, nil
}
