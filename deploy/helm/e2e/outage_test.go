package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// outage kills the broker until ingests keep frames in their spools. Then it starts the
// broker again, and takes an ingest away. Reconciliation shows whether the frames in the
// spool of that one have reached the bus.
func (w *world) outage(ctx context.Context) error {
	kept := func(ctx context.Context) (float64, error) {
		sum, _, err := w.sum(ctx, "ingest", "oona_ingest_spool_frames_total")
		return sum, err
	}
	before, err := kept(ctx)
	if err != nil {
		return err
	}
	retries := w.load.counts().Retries
	if err := w.kafka.Kill(1); err != nil {
		return err
	}
	err = await(ctx, "frames in the spools", func(ctx context.Context) error {
		now, err := kept(ctx)
		if err == nil && now-before < 100 {
			err = fmt.Errorf("%v frames were kept", now-before)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, w.kafka.Restart(ctx, 1))
	}
	began := time.Now()
	if err := w.kafka.Restart(ctx, 1); err != nil {
		return err
	}
	if err := w.scale(ctx, release+"-ingest", 2); err != nil {
		return err
	}
	err = await(ctx, "the spools to be sent", func(ctx context.Context) error {
		left, series, err := w.sum(ctx, "ingest", "oona_ingest_spool_records")
		if err == nil && (left > 0 || series != 2) {
			err = fmt.Errorf("%v requests are left in %d spools", left, series)
		}
		return err
	})
	after, failed := kept(ctx)
	w.figure("while Kafka was down, %.0f frames were kept by the ingests that are left; the spools were empty %.0f s after it was started again; %d requests were sent again",
		after-before, time.Since(began).Seconds(), w.load.counts().Retries-retries)
	return errors.Join(err, failed)
}
