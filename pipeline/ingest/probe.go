package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/outage"
)

// The timeout of a probe of the tensor store, and the pause between probes while the
// store fails. The pause doubles up to longestProbe.
const (
	probeTimeout  = 10 * time.Second
	shortestProbe = time.Second
	longestProbe  = 30 * time.Second
)

// storeState is the state of the tensor store, as far as ingest knows it.
type storeState struct {
	up     atomic.Int32  // 1: the last operation did not fail; 0: it did
	failed chan struct{} // signals that the store is to be probed

	mu     sync.Mutex
	since  time.Time // when it first failed; zero while it is up
	err    error     // of the last failure
	probes outage.Outage
}

// works records an operation that did not fail, and reports whether it is the first one after a
// failure or after the start.
func (s *storeState) works() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.err = time.Time{}, nil
	s.probes.Ends()
	return s.up.Swap(1) == 0
}

// fails records that an operation has failed.
func (s *storeState) fails(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up.Store(0); s.since.IsZero() {
		s.since = time.Now()
	}
	s.err = err
}

// probeFails records that a probe has failed. It reports whether that is to be logged, and how many
// failed probes were not logged since the last one that was.
func (s *storeState) probeFails(what string, err error) (skipped int, say bool) {
	s.fails(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes.Fails(what, time.Now())
}

// StoreNote says since when the tensor store fails, and why. It is empty while the store
// works, or if there is none.
func (s *Stage) StoreNote() string {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if s.store.since.IsZero() {
		return ""
	}
	return fmt.Sprintf("down since %s: %v", s.store.since.UTC().Format(time.RFC3339), s.store.err)
}

func (s *storeState) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_store_up", Help: "1 if the tensor store works; 0 from a failure until a probe succeeds, and until the first probe has succeeded.",
	}, func() float64 { return float64(s.up.Load()) })
}

// needsOperator reports whether an error of the store will last until an operator acts.
func needsOperator(err error) bool {
	return !errors.Is(err, claimcheck.ErrFull) && (errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, claimcheck.ErrSpool))
}

// Warnings of a probe that failed. They are logged when the store begins to fail, when the other one
// applies, and every ten minutes.
const (
	probeRefused = "a probe of the tensor store failed; tensors are refused until the cause is corrected"
	probeFailed  = "a probe of the tensor store failed; until one succeeds, requests with large tensors are answered with 503; other requests are not affected"
)

func (s *sink) probeStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := s.cfg.Tensors.Probe(ctx, s.cfg.Instance)
	switch {
	case err == nil:
		if s.store.works() {
			s.logger.Info("the tensor store accepts tensors")
		}
	case errors.Is(err, context.Canceled): // the caller has stopped
	default:
		warning := probeFailed
		if needsOperator(err) {
			warning = probeRefused
		}
		if skipped, say := s.store.probeFails(warning, err); say {
			s.logger.Warn(warning, "err", err, "suppressed", skipped)
		}
	}
	return err
}

// storeFailed records that an operation of the store failed.
func (s *sink) storeFailed(err error) {
	s.store.fails(err)
	signal(s.store.failed)
}

// watchStore probes the store whenever it has failed, until a probe succeeds. It
// returns when ctx ends.
func (s *sink) watchStore(ctx context.Context) {
	if s.cfg.Tensors == nil {
		return
	}
	if s.store.up.Load() == 0 {
		signal(s.store.failed)
	}
	for {
		select {
		case <-s.store.failed:
		case <-ctx.Done():
			return
		}
		for pause := shortestProbe; s.probeStore(ctx) != nil; pause = min(2*pause, longestProbe) {
			if bus.Pause(ctx, pause); ctx.Err() != nil {
				return
			}
		}
	}
}
