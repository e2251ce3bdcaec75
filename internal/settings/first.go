package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// WriteFirst writes the first records into the partitions of seed-metrics that have none:
// the start of an incarnation, and a configuration that applies to the whole log. If another
// program writes a record between the two, the configuration is void. WriteFirst returns the
// partitions. It writes their incarnations to the settings topic before it writes the records,
// and their configurations afterwards.
func WriteFirst(ctx context.Context, b bus.Bus, topics oona.Topics, first oona.WindowConfiguration, worker string, logger *slog.Logger) ([]int32, error) {
	s, err := Read(ctx, b, topics, logger)
	if err != nil {
		return nil, err
	}
	extents, err := b.Extents(ctx, topics.SeedMetrics)
	if err != nil {
		return nil, err
	}
	var written []int32
	var messages []*message.Message
	var before, after []Entry
	for i, extent := range extents[topics.SeedMetrics] {
		partition := int32(i)
		configurable, err := unconfigured(ctx, b, topics.SeedMetrics, partition, extent.End)
		if err != nil {
			return nil, err
		}
		if !configurable {
			continue
		}
		if extent.End == 0 {
			start, err := next(ctx, b, topics, s, partition, 0)
			if err != nil {
				return nil, err
			}
			start.Reason, start.Worker = "the partition was empty", worker
			before = append(before, IncarnationEntry(topics.SeedMetrics, partition, start.Number))
			messages = append(messages, startMessage(partition, start))
		}
		written = append(written, partition)
		messages = append(messages, configurationMessage(partition, first))
		after = append(after, WindowsEntry(partition, first))
	}
	if len(written) == 0 {
		return nil, nil
	}
	if err := Write(ctx, b, topics, before...); err != nil {
		return nil, err
	}
	if err := publish(ctx, b, topics.SeedMetrics, messages); err != nil {
		return nil, fmt.Errorf("write the first records, which some partitions may have: %w", err)
	}
	return written, Write(ctx, b, topics, after...)
}

// WriteConfiguration appends a configuration record to partitions of seed-metrics. It
// does not write to the settings topic, because the record must be read back to know
// whether it is valid.
func WriteConfiguration(ctx context.Context, b bus.Bus, topics oona.Topics, partitions []int32, c oona.WindowConfiguration) error {
	messages := make([]*message.Message, len(partitions))
	for i, partition := range partitions {
		messages[i] = configurationMessage(partition, c)
	}
	return publish(ctx, b, topics.SeedMetrics, messages)
}

// fewStarts is the maximum number of records in a partition that unconfigured reads.
const fewStarts = 16

var errOtherRecord = errors.New("another record")

// unconfigured returns true if a partition has no records except starts of incarnations. It can
// have those if WriteFirst was interrupted.
func unconfigured(ctx context.Context, b bus.Bus, topic string, partition int32, end int64) (bool, error) {
	if end == 0 || end > fewStarts {
		return end == 0, nil
	}
	starts := int64(0)
	err := b.Read(ctx, topic, bus.Range{Partition: partition, End: end}, func(msg *message.Message) error {
		if msg.Metadata.Get(oona.HeaderRecord) != oona.IncarnationRecord {
			return errOtherRecord
		}
		starts++
		return nil
	})
	if errors.Is(err, errOtherRecord) {
		return false, nil
	}
	return err == nil && starts == end, err
}
