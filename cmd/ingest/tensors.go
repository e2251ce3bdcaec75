package main

import (
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// tensorStore opens the configured store, or returns nil if none is configured. It
// sends no request to the store; the stage does.
func (c *config) tensorStore() (ingest.TensorStore, error) {
	store, err := claimcheck.Open(c.Tensors)
	if err != nil || store == nil { // a nil *Store would be a non-nil interface
		return nil, err
	}
	return store, nil
}
