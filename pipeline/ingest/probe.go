package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
)

// How long a probe of the tensor store may take, and the pause between two while
// it does not take tensors: it doubles from the one to the other.
const (
	probeTimeout  = 10 * time.Second
	shortestProbe = time.Second
	longestProbe  = 30 * time.Second
)

// storeState is whether the tensor store takes tensors, as far as is known.
type storeState struct {
	up     atomic.Bool
	failed chan struct{} // it is to be probed
}

func (s *storeState) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_store_up", Help: "Whether the tensor store takes tensors: 0 from when it fails until a probe succeeds.",
	}, func() float64 {
		if s.up.Load() {
			return 1
		}
		return 0
	})
}

// needsOperator reports whether the store's error stays until somebody acts.
func needsOperator(err error) bool {
	return !errors.Is(err, claimcheck.ErrFull) && (errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, claimcheck.ErrSpool))
}

// ProbeStore is for the start: it probes the tensor store, if there is one, and
// returns an error where that refuses what ingest needs. One that is down, or
// full, does not keep ingest from starting, since frames need none: Run probes it
// again.
func (s *Stage) ProbeStore(ctx context.Context) error {
	if s.cfg.Tensors == nil {
		return nil
	}
	err := s.probeStore(ctx)
	if needsOperator(err) {
		return fmt.Errorf("--tensor-store: %w", err)
	}
	return nil
}

func (in *intake) probeStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := in.cfg.Tensors.Probe(ctx, in.cfg.Instance)
	switch {
	case err == nil:
		if !in.store.up.Swap(true) {
			in.logger.Info("the tensor store takes tensors")
		}
	case errors.Is(err, context.Canceled): // by whoever asked
	case needsOperator(err):
		in.warn("the tensor store was probed, and tensors are refused until somebody acts", "err", err)
	default:
		in.warn("the tensor store was probed, and takes no tensors; frames without large tensors are taken, the others are answered 503 until it does", "err", err)
	}
	return err
}

// storeFailed notes that the store did not do what it was asked for.
func (in *intake) storeFailed() {
	in.store.up.Store(false)
	signal(in.store.failed)
}

// watchStore probes the store until it takes tensors, each time that it has
// failed, and if it was not probed before. It returns when ctx ends.
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
