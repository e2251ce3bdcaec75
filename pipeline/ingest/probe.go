package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
)

// The timeout of a probe of the tensor store, and the pause between probes while the
// store fails. The pause doubles up to longestProbe.
const (
	probeTimeout  = 10 * time.Second
	shortestProbe = time.Second
	longestProbe  = 30 * time.Second
)

// storeState is what is known about the tensor store.
type storeState struct {
	up     atomic.Bool   // the last operation did not fail
	failed chan struct{} // signals that the store is to be probed
}

func (s *storeState) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_store_up", Help: "Whether the tensor store works: 0 from a failure until a probe succeeds.",
	}, func() float64 {
		if s.up.Load() {
			return 1
		}
		return 0
	})
}

// needsOperator reports whether an error of the store lasts until an operator acts.
func needsOperator(err error) bool {
	return !errors.Is(err, claimcheck.ErrFull) && (errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, claimcheck.ErrSpool))
}

func (in *intake) probeStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := in.cfg.Tensors.Probe(ctx, in.cfg.Instance)
	switch {
	case err == nil:
		if !in.store.up.Swap(true) {
			in.logger.Info("the tensor store accepts tensors")
		}
	case errors.Is(err, context.Canceled): // the caller has stopped
	case needsOperator(err):
		in.warn("a probe of the tensor store failed; tensors are refused until the cause is corrected", "err", err)
	default:
		in.warn("a probe of the tensor store failed; frames with large tensors are answered 503 until it works, other frames are not affected", "err", err)
	}
	return err
}

// storeFailed records that an operation of the store failed.
func (in *intake) storeFailed() {
	in.store.up.Store(false)
	signal(in.store.failed)
}

// watchStore probes the store whenever it has failed, until a probe succeeds. It
// returns when ctx ends.
func (in *intake) watchStore(ctx context.Context) {
	if in.cfg.Tensors == nil {
		return
	}
	if !in.store.up.Load() {
		signal(in.store.failed)
	}
	for {
		select {
		case <-in.store.failed:
		case <-ctx.Done():
			return
		}
		for pause := shortestProbe; in.probeStore(ctx) != nil; pause = min(2*pause, longestProbe) {
			if bus.Pause(ctx, pause); ctx.Err() != nil {
				return
			}
		}
	}
}
