package partition

import (
	"context"
	"time"

	"github.com/morphogenetic/oona/bus"
)

const (
	// retentionEvery is the time between two queries of the topic's retention.
	retentionEvery = 10 * time.Minute
	// retentionRetry is the time after a query that has failed.
	retentionRetry = time.Minute
)

// followRetention queries the topic's retention from time to time, since it may be
// changed.
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
			r.logger.Warn("cannot query the topic's retention; the last known value is used", "topic", r.cfg.Topic, "err", err)
		default:
			r.retention.Store(int64(retention))
			r.metrics.retention.Set(retention.Seconds())
		}
		if !bus.Pause(ctx, wait) {
			return
		}
	}
}
