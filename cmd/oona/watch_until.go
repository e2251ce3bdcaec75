package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/replay"
)

// until shows the records up to --until, partition by partition, and returns.
func (w *watchCommand) until(ctx context.Context, options watch.Options, to streams, logger *slog.Logger) error {
	log, now := kafka.New(w.Bus, logger), time.Now()
	extents, err := log.Extents(ctx, options.Address.Topic)
	if err != nil {
		return err
	}
	var ranges []bus.Range
	for p, held := range extents[options.Address.Topic] {
		r := bus.Range{Partition: int32(p), From: held.Start}
		if r.End, err = w.Until.offset(ctx, log, options.Address.Topic, r.Partition, held, now); err != nil {
			return err
		}
		if start := w.From.time(now); w.From.given && !start.IsZero() {
			if r.From, err = replay.OffsetAt(ctx, log, options.Address.Topic, r.Partition, held, oona.MicrosOf(start)); err != nil {
				return err
			}
		}
		if r.From < r.End {
			ranges = append(ranges, r)
		}
	}
	return watch.Ranges(ctx, log, ranges, options, to.out)
}
