package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// probeTimeout is how long the start waits for the tensor store.
const probeTimeout = 10 * time.Second

// tensorStore opens the store that is configured, if one is. One that is down
// does not keep ingest from starting, since frames need none; one that does not
// admit us would not by itself do so later.
func (c *config) tensorStore(ctx context.Context, logger *slog.Logger) (ingest.TensorStore, error) {
	store, err := claimcheck.Open(c.Tensors)
	if err != nil {
		return nil, err
	}
	if store == nil { // and not an interface that holds nil
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err = store.Probe(ctx)
	if errors.Is(err, claimcheck.ErrDenied) {
		return nil, fmt.Errorf("--tensor-store: %w", err)
	}
	if err != nil {
		logger.Warn("the tensor store does not answer; frames are taken, those with large tensors are answered 503 until it does", "error", err)
	}
	return store, nil
}
