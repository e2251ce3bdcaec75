package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/schemas/registry"
)

// schemaRegistry opens the schema registry, or returns nil if none is configured. It returns an error
// if an operator must act: the registry refuses the credentials, or something else answers at its URL.
// If the registry does not answer, ingest starts all the same, and frames that need it wait.
func (c *config) schemaRegistry(ctx context.Context, w *worker.Worker) (*registry.Registry, error) {
	if !c.Registry.Given() {
		return nil, nil
	}
	r, err := registry.Open(c.Registry, w.Registry, w.Logger)
	if err != nil {
		return nil, err
	}
	err = r.Probe(ctx)
	switch {
	case errors.Is(err, registry.ErrCredentials), errors.Is(err, registry.ErrNoRegistry):
		return nil, fmt.Errorf("--registry-url: %w", err)
	case err != nil:
		w.Logger.Warn("the schema registry does not answer; until it does, ingest accepts frames with a schema id only if the file of --registry-cache has the schema", "err", err)
	}
	return r, nil
}
