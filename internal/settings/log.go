package settings

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Log implements aggregate.Log. It gives a worker that starts to fold a partition access to the log
// of seed-metrics.
type Log struct {
	Bus    bus.Bus
	Topics oona.Topics
	Worker string // name in the records that begin incarnations
}

// Record returns the append time of the record at an offset, or false without a record.
func (l Log) Record(ctx context.Context, partition int32, offset int64) (appendedAt oona.Micros, found bool, err error) {
	msg, err := bus.RecordAt(ctx, l.Bus, l.Topics.SeedMetrics, partition, offset)
	if err != nil || msg == nil {
		return 0, false, err
	}
	at, err := bus.PositionOf(msg)
	if err != nil {
		return 0, false, fmt.Errorf("read %s/%d at offset %d: %w", l.Topics.SeedMetrics, partition, offset, err)
	}
	return at.Appended, true, nil
}

// FirstIncarnation returns the incarnation that the record at offset 0 begins, or 0. It
// also returns 0 if the record cannot be read: the partition's aggregator reports that.
func (l Log) FirstIncarnation(ctx context.Context, partition int32) (oona.Incarnation, error) {
	msg, err := bus.RecordAt(ctx, l.Bus, l.Topics.SeedMetrics, partition, 0)
	if err != nil || msg == nil || msg.Metadata.Get(oona.HeaderRecord) != oona.IncarnationRecord {
		return 0, err
	}
	start, err := avro.DecodeIncarnation(msg.Payload)
	if err != nil || start.Validate() != nil {
		return 0, nil
	}
	return start.Number, nil
}

// LastIncarnation returns the greatest incarnation of a partition in the settings topic,
// or 0.
func (l Log) LastIncarnation(ctx context.Context, partition int32) (oona.Incarnation, error) {
	s, err := Read(ctx, l.Bus, l.Topics, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	return s.Incarnation(l.Topics.SeedMetrics, partition), nil
}

// LastRollups calls the function LastRollups.
func (l Log) LastRollups(ctx context.Context, partition int32) ([]oona.Rollup, error) {
	return LastRollups(ctx, l.Bus, l.Topics, partition)
}

// BeginIncarnation calls the function BeginIncarnation.
func (l Log) BeginIncarnation(ctx context.Context, partition int32, known oona.Incarnation, previousEnd int64, reason string) (int64, error) {
	return BeginIncarnation(ctx, l.Bus, l.Topics, partition, known, previousEnd, reason, l.Worker)
}

// LastWindows returns the last configuration of a partition in the settings topic, or
// false.
func (l Log) LastWindows(ctx context.Context, partition int32) (oona.WindowConfiguration, bool, error) {
	s, err := Read(ctx, l.Bus, l.Topics, slog.New(slog.DiscardHandler))
	if err != nil {
		return oona.WindowConfiguration{}, false, err
	}
	last, found := s.Windows[partition]
	return last, found, nil
}
