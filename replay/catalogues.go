package replay

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/windows"
)

// Find returns the catalogue with a hash. The zero hash stands for the catalogue of logs that
// do not name one.
type Find func(oona.CatalogueHash) (*catalogue.Catalogue, error)

// ForEngine returns the catalogues for a window engine. It adds each catalogue that the engine needs to
// the manifest, so that the archive can be folded without the bus.
func (f Find) ForEngine(m *manifest.Manifest) windows.Catalogues {
	return func(hash oona.CatalogueHash) (windows.Catalogue, error) {
		c, err := f(hash)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return c.Metric, nil
		}
		text, err := c.YAML()
		if err != nil {
			return nil, err
		}
		if m.Catalogues == nil {
			m.Catalogues = make(map[string]string)
		}
		m.Catalogues[hash.String()] = string(text)
		return c.Metric, nil
	}
}

// FindIn returns the catalogues of an archive.
func FindIn(m *manifest.Manifest) Find {
	return func(hash oona.CatalogueHash) (*catalogue.Catalogue, error) {
		if text, found := m.Catalogues[hash.String()]; found {
			return catalogue.Parse([]byte(text))
		}
		c, found, err := catalogue.BuiltIn(hash)
		if err == nil && !found {
			err = fmt.Errorf("%w: the archive has none with the hash %s", windows.ErrCatalogue, hash)
		}
		return c, err
	}
}
