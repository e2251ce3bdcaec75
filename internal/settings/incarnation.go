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

// LastRollups returns the last rollup that was written of a partition to each of
// the two rollup topics, of those that have one. What was emitted before may have
// greater triggers, where an aggregator was just repeating what it had emitted.
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

// LastTrigger returns the greatest trigger of LastRollups. It is false where
// there are none.
func LastTrigger(ctx context.Context, b bus.Bus, topics oona.Topics, partition int32) (last oona.Trigger, found bool, err error) {
	all, err := LastRollups(ctx, b, topics, partition)
	for _, r := range all {
		if !found || r.Trigger.After(last) {
			last, found = r.Trigger, true
		}
	}
	return last, found, err
}

// BeginIncarnation begins an incarnation of a partition of seed-metrics: it
// writes the number into the settings topic, where there is one, and then the
// record that begins it. The number is above known, which is what the caller
// knows of the log, and above those of the settings and of the last rollups. It
// returns where the partition ends after the record, as its leader says; other
// records may be behind it.
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

// next returns the start of a partition's next incarnation.
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

// own is one of Oona's own records.
func own(partition int32, kind string, value []byte) *message.Message {
	msg := bus.NewMessage(value, bus.Target{Partition: partition, Directed: true})
	msg.Metadata.Set(oona.HeaderRecord, kind)
	return msg
}
