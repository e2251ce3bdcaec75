package partition

import (
	"context"
	"time"

	"github.com/morphogenetic/oona/bus"
)

const (
	// retentionEvery is between two looks at how long the topic keeps a record.
	retentionEvery = 10 * time.Minute
	// retentionRetry is after a look that has failed.
	retentionRetry = time.Minute
)

// followRetention keeps how long the topic keeps a record, which somebody may
// change.
func (r *Runtime) followRetention(ctx context.Context) {
	if r.cfg.Retention == nil {
		return
	}
	for {
		wait := retentionEvery
		retention, err := r.cfg.Retention(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = retentionRetry
			r.logger.Warn("cannot ask for the topic's retention; it is taken to be what it was", "topic", r.cfg.Topic, "err", err)
		default:
			r.retention.Store(int64(retention))
			r.metrics.retention.Set(retention.Seconds())
		}
		if !bus.Pause(ctx, wait) {
			return
		}
	}
}
