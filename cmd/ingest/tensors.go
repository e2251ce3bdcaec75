package main

import (
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// tensorStore opens the store that is configured, if one is. It asks it for
// nothing: that is the stage's to do.
func (c *config) tensorStore() (ingest.TensorStore, error) {
	store, err := claimcheck.Open(c.Tensors)
	if err != nil || store == nil { // and not an interface that holds nil
		return nil, err
	}
	return store, nil
}
