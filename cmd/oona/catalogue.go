package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
)

// builtInCatalogue is the name of the newest built-in catalogue.
const builtInCatalogue = "built-in"

// shelf keeps catalogues that are not built in, in the settings topic.
type shelf struct {
	bus    bus.Bus
	topics oona.Topics
	held   *settings.Settings
}

// openShelf reads the settings topic, which must exist.
func openShelf(ctx context.Context, b bus.Bus, topics oona.Topics, logger *slog.Logger) (*shelf, error) {
	held, err := settings.Read(ctx, b, topics, logger)
	if err != nil {
		return nil, err
	}
	if !held.Found {
		return nil, fmt.Errorf("%w: %s, with the settings that workers share", bus.ErrNoTopic, topics.Settings)
	}
	return &shelf{b, topics, held}, nil
}

// checkCatalogueFile checks the file that a flag names, if it names one, so that no
// topics are created if the file is wrong.
func checkCatalogueFile(name string) error {
	if name == "" || name == builtInCatalogue {
		return nil
	}
	if _, err := oona.ParseCatalogueHash(name); err == nil {
		return nil
	}
	_, err := catalogue.Open(name)
	return err
}

// find returns the catalogue that a flag names: the newest built-in one, the one with
// a hash, or a file that extends the newest built-in one.
func (s *shelf) find(name string) (*catalogue.Catalogue, error) {
	if name == "" || name == builtInCatalogue {
		return catalogue.Default()
	}
	hash, err := oona.ParseCatalogueHash(name)
	if err != nil { // name is a file
		return catalogue.Open(name)
	}
	c, found, err := s.held.Catalogue(hash)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s is neither built in nor in %s; give a file (./%s if it has this name)", settings.ErrUnknownCatalogue, hash, s.topics.Settings, name)
	}
	return c, err
}

// keep writes a catalogue into the topic, unless it is there or built in.
func (s *shelf) keep(ctx context.Context, c *catalogue.Catalogue) (written bool, err error) {
	if _, found, err := s.held.Catalogue(c.Hash()); err == nil && found {
		return false, nil
	}
	entry, err := settings.CatalogueEntry(c)
	if err != nil {
		return false, err
	}
	return true, settings.Write(ctx, s.bus, s.topics, entry)
}
