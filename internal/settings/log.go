package settings

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Log is the log of seed-metrics for a worker that begins to fold a partition: it
// is an aggregate.Log.
type Log struct {
	Bus    bus.Bus
	Topics oona.Topics
	Worker string // who begins incarnations
}

// Record returns the append time of the record at an offset; false: there is
// none.
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

// FirstIncarnation returns the number of the incarnation that the record at
// offset 0 begins; 0: there is no such record. One that cannot be read is none,
// as a partition's aggregator says what is wrong with it.
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

// LastIncarnation returns the greatest incarnation that was written for a
// partition, as the settings topic has it; 0: it has none.
func (l Log) LastIncarnation(ctx context.Context, partition int32) (oona.Incarnation, error) {
	s, err := Read(ctx, l.Bus, l.Topics, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	return s.Incarnation(l.Topics.SeedMetrics, partition), nil
}

// LastRollups is the function of that name.
func (l Log) LastRollups(ctx context.Context, partition int32) ([]oona.Rollup, error) {
	return LastRollups(ctx, l.Bus, l.Topics, partition)
}

// BeginIncarnation is the function of that name.
func (l Log) BeginIncarnation(ctx context.Context, partition int32, known oona.Incarnation, previousEnd int64, reason string) (int64, error) {
	return BeginIncarnation(ctx, l.Bus, l.Topics, partition, known, previousEnd, reason, l.Worker)
}

// LastWindows returns the configuration that was last written to a partition, as
// the settings topic has it; false: it has none.
func (l Log) LastWindows(ctx context.Context, partition int32) (oona.WindowConfiguration, bool, error) {
	s, err := Read(ctx, l.Bus, l.Topics, slog.New(slog.DiscardHandler))
	if err != nil {
		return oona.WindowConfiguration{}, false, err
	}
	last, found := s.Windows[partition]
	return last, found, nil
}
