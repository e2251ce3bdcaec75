package windows

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
)

// Catalogue returns what is known of a metric, of which an engine uses the
// group and the direction. It must give the same answer each time.
type Catalogue = func(metric string) oona.Metric

// Catalogues returns the catalogue with a hash. The zero hash is that of a log
// that names none: the worker's own catalogue. The error wraps ErrCatalogue
// where there is no such catalogue, and says how to provide it. Another error
// may be over the next time, as where the place cannot be read in which
// catalogues are kept.
type Catalogues func(oona.CatalogueHash) (Catalogue, error)

// Always returns Catalogues that have the same catalogue for every hash: for
// who folds no metrics, and for tests.
func Always(c Catalogue) Catalogues {
	return func(oona.CatalogueHash) (Catalogue, error) { return c, nil }
}

// ErrCatalogue says that a catalogue which a log or a commit names cannot be
// had. An engine without it would come to other rollups.
var ErrCatalogue = errors.New("the catalogue of metrics that the log names is not to be had")

// resolve gives each era its catalogue. The error is that of Catalogues.
func (e *Engine) resolveCatalogues(of configEpochs) error {
	for _, a := range of {
		c, err := e.findCatalogue(a.cfg.Catalogue)
		if err != nil {
			return err
		}
		a.catalogue = c
	}
	return nil
}

// find returns the catalogue with a hash, of an era that has it or as
// e.catalogues does.
func (e *Engine) findCatalogue(hash oona.CatalogueHash) (Catalogue, error) {
	for _, a := range e.configEpochs {
		if a.cfg.Catalogue == hash && a.catalogue != nil {
			return a.catalogue, nil
		}
	}
	c, err := e.catalogues(hash)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", hash, err)
	}
	return c, nil
}
