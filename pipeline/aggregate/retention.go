package aggregate

import (
	"context"
	"time"

	"github.com/morphogenetic/oona/pipeline"
)

const (
	// retentionEvery is between two looks at how long the topic keeps a record.
	retentionEvery = 10 * time.Minute
	// retentionRetry is after a look that has failed.
	retentionRetry = time.Minute
)

// followRetention keeps how long the topic keeps a record, which somebody may
// change.
func (s *Stage) followRetention(ctx context.Context) {
	if s.cfg.Retention == nil {
		return
	}
	for {
		wait := retentionEvery
		retention, err := s.cfg.Retention(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = retentionRetry
			s.logger.Warn("cannot ask for the topic's retention; it is taken to be what it was", "topic", s.cfg.Topics.SeedMetrics, "err", err)
		default:
			s.retention.Store(int64(retention))
			s.metrics.retention.Set(retention.Seconds())
		}
		if !pipeline.Pause(ctx, wait) {
			return
		}
	}
}
