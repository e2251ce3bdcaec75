package windows

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
)

// Catalogue returns the description of a metric. An engine uses the group and the
// direction. A catalogue must return the same description each time.
type Catalogue = func(metric string) oona.Metric

// Catalogues returns the catalogue with a hash. The zero hash stands for the worker's
// own catalogue, for logs that name none. If there is no such catalogue, the error
// wraps ErrCatalogue and says how to provide it. Other errors may be temporary, for
// example if the topic with the catalogues cannot be read.
type Catalogues func(oona.CatalogueHash) (Catalogue, error)

// Always returns Catalogues that have the same catalogue for every hash. It is for
// tests, and for engines that fold no metrics.
func Always(c Catalogue) Catalogues {
	return func(oona.CatalogueHash) (Catalogue, error) { return c, nil }
}

// ErrCatalogue is returned if there is no catalogue with the hash that a log or a
// commit names. With another catalogue, an engine would compute other rollups.
var ErrCatalogue = errors.New("the catalogue of metrics that the log names cannot be found")

// resolveCatalogues gives each epoch its catalogue. It returns the error of
// Catalogues.
func (e *Engine) resolveCatalogues(epochs configEpochs) error {
	for _, c := range epochs {
		catalogue, err := e.findCatalogue(c.cfg.Catalogue)
		if err != nil {
			return err
		}
		c.catalogue = catalogue
	}
	return nil
}

// findCatalogue returns the catalogue with a hash, from an epoch that has it or from
// e.catalogues.
func (e *Engine) findCatalogue(hash oona.CatalogueHash) (Catalogue, error) {
	for _, c := range e.configEpochs {
		if c.cfg.Catalogue == hash && c.catalogue != nil {
			return c.catalogue, nil
		}
	}
	c, err := e.catalogues(hash)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", hash, err)
	}
	return c, nil
}
