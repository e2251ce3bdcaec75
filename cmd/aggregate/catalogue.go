package main

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/windows"
)

// ownCatalogue is what holds where a log names no catalogue: what was folded
// once is folded alike by later versions of this program.
func ownCatalogue(path string) (*catalogue.Catalogue, error) {
	first, _, err := catalogue.BuiltIn(oona.CatalogueHash{})
	if err != nil {
		return nil, err
	}
	return first.Overlay(path)
}

// catalogues returns the catalogue that a log names: own where it names none.
func catalogues(own *catalogue.Catalogue) windows.Catalogues {
	return func(hash oona.CatalogueHash) (windows.Catalogue, error) {
		if hash == (oona.CatalogueHash{}) {
			return own.Metric, nil
		}
		known, found, err := catalogue.BuiltIn(hash)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("%w: it is not built in", windows.ErrCatalogue)
		}
		return known.Metric, nil
	}
}
