package settings

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// LastRollups returns the last rollup of a partition in each of the two rollup topics, if there
// is one. Earlier rollups can have greater triggers if the last ones are repeats.
func LastRollups(ctx context.Context, b bus.Bus, topics oona.Topics, partition int32) (last []oona.Rollup, err error) {
	for _, topic := range []string{topics.LayerHealth, topics.LayerPerformance} {
		msg, err := bus.LastRecord(ctx, b, topic, partition)
		if err != nil {
			return nil, fmt.Errorf("find the last rollup: %w", err)
		}
		if msg == nil {
			continue
		}
		var r oona.Rollup
		if _, err := avro.DecodeRollup(msg.Payload, &r); err != nil {
			return nil, fmt.Errorf("the last record of %s/%d is no rollup that this version can read; if a later version has written it, upgrade: %w", topic, partition, err)
		}
		last = append(last, r)
	}
	return last, nil
}

// LastTrigger returns the greatest trigger of LastRollups, or false without rollups.
func LastTrigger(ctx context.Context, b bus.Bus, topics oona.Topics, partition int32) (last oona.Trigger, found bool, err error) {
	all, err := LastRollups(ctx, b, topics, partition)
	for _, r := range all {
		if !found || r.Trigger.After(last) {
			last, found = r.Trigger, true
		}
	}
	return last, found, err
}

// BeginIncarnation begins an incarnation of a partition of seed-metrics. If there is a
// settings topic, it first writes the number there. Then it writes the record that begins
// the incarnation. The number is greater than known, the incarnation of the log as far as the
// caller knows it, and greater than the numbers in the settings topic and in the last rollups.
// BeginIncarnation returns the end of the partition after the record was written. Other records may
// already follow it.
func BeginIncarnation(ctx context.Context, b bus.Bus, topics oona.Topics, partition int32, known oona.Incarnation, previousEnd int64, reason, worker string) (end int64, err error) {
	s, err := Read(ctx, b, topics, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	start, err := next(ctx, b, topics, s, partition, known)
	if err != nil {
		return 0, err
	}
	start.PreviousEnd, start.Reason, start.Worker = previousEnd, reason, worker
	if s.Found {
		if err := Write(ctx, b, topics, IncarnationEntry(topics.SeedMetrics, partition, start.Number)); err != nil {
			return 0, err
		}
	}
	if err := publish(ctx, b, topics.SeedMetrics, []*message.Message{startMessage(partition, start)}); err != nil {
		return 0, fmt.Errorf("begin incarnation %d of partition %d: %w", start.Number, partition, err)
	}
	extents, err := b.Extents(ctx, topics.SeedMetrics)
	if err != nil {
		return 0, fmt.Errorf("find the end of partition %d behind its incarnation record: %w", partition, err)
	}
	return extents[topics.SeedMetrics][partition].End, nil
}

// next returns the start of the next incarnation of a partition.
func next(ctx context.Context, b bus.Bus, topics oona.Topics, s *Settings, partition int32, known oona.Incarnation) (oona.IncarnationStart, error) {
	last, _, err := LastTrigger(ctx, b, topics, partition)
	if err != nil {
		return oona.IncarnationStart{}, err
	}
	now := oona.MicrosOf(time.Now())
	number := oona.NextIncarnation(now, known, s.Incarnation(topics.SeedMetrics, partition), last.Incarnation)
	return oona.IncarnationStart{Number: number, PreviousEnd: oona.NoOffset, WrittenAt: now}, nil
}

func startMessage(partition int32, s oona.IncarnationStart) *message.Message {
	return own(partition, oona.IncarnationRecord, avro.AppendIncarnation(nil, s))
}

func configurationMessage(partition int32, c oona.WindowConfiguration) *message.Message {
	return own(partition, oona.ConfigurationRecord, avro.AppendConfiguration(nil, c))
}

// own returns one of Oona's own records.
func own(partition int32, kind string, value []byte) *message.Message {
	msg := bus.NewMessage(value, bus.Target{Partition: partition, Directed: true})
	msg.Metadata.Set(oona.HeaderRecord, kind)
	return msg
}
