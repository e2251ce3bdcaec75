package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
)

// HighWater returns, for each topic, the offset after the last record of each
// partition.
func HighWater(ctx context.Context, cfg Config, topics ...string) (map[string]map[int32]int64, error) {
	client, err := connect(cfg, cfg.client())
	if err != nil {
		return nil, err
	}
	ends := make(map[string]map[int32]int64, len(topics))
	for _, topic := range topics {
		if ends[topic], err = offsetsOf(ctx, client, topic, sarama.OffsetNewest); err != nil {
			break
		}
	}
	if err = errors.Join(err, client.Close()); err != nil {
		return nil, err
	}
	return ends, nil
}

// Commits returns a group's commits of a topic's partitions, of which each has
// one: where there is none its offset is oona.NoOffset.
func Commits(ctx context.Context, cfg Config, group, topic string) (_ map[int32]oona.Commit, err error) {
	of := &offsets{cfg: cfg, group: group}
	defer func() { err = errors.Join(err, of.close()) }()
	client, err := of.connection()
	if err != nil {
		return nil, err
	}
	partitions, err := partitionsOf(client, topic)
	if err != nil {
		return nil, err
	}
	commits := make(map[int32]oona.Commit, len(partitions))
	for _, p := range partitions {
		if commits[p], err = of.fetch(ctx, topic, p); err != nil {
			return nil, err
		}
	}
	return commits, nil
}

func partitionsOf(client sarama.Client, topic string) ([]int32, error) {
	partitions, err := client.Partitions(topic)
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		err = fmt.Errorf("%w; %s, or give the --prefix that its name begins with", err, applyIt)
	}
	if err != nil {
		return nil, fmt.Errorf("find the partitions of %s: %w", topic, err)
	}
	return partitions, nil
}

// offsetsOf asks for an offset of each partition: sarama.OffsetNewest,
// sarama.OffsetOldest, or the first at or after a time in milliseconds, -1
// where there is none.
func offsetsOf(ctx context.Context, client sarama.Client, topic string, at int64) (map[int32]int64, error) {
	partitions, err := partitionsOf(client, topic)
	if err != nil {
		return nil, err
	}
	offsets := make(map[int32]int64, len(partitions))
	for _, p := range partitions {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("find the offsets of %s: %w", topic, err)
		}
		if offsets[p], err = client.GetOffset(topic, p, at); err != nil {
			return nil, fmt.Errorf("find an offset of %s/%d: %w", topic, p, err)
		}
	}
	return offsets, nil
}
