package main

import (
	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
)

// ownCatalogue returns the catalogue for logs that do not name one: the first
// built-in catalogue with the file at path. It is not the newest one, so that later
// versions of this program compute the same rollups.
func ownCatalogue(path string) (*catalogue.Catalogue, error) {
	first, _, err := catalogue.BuiltIn(oona.CatalogueHash{})
	if err != nil {
		return nil, err
	}
	return first.Overlay(path)
}
