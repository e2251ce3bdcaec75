package main

import (
	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
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
