package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/windows"
)

// ErrUnknownCatalogue is returned for a hash of a catalogue that is neither built in nor
// in the settings topic.
var ErrUnknownCatalogue = errors.New("no such catalogue of metrics")

// rereadAfter is the minimum time between two reads of the topic.
const rereadAfter = 2 * time.Second

// Catalogues finds catalogues by their hash, for a worker. It is safe for concurrent use.
type Catalogues struct {
	bus    bus.Bus
	topics oona.Topics
	logger *slog.Logger

	mu     sync.Mutex
	known  map[oona.CatalogueHash]*catalogue.Catalogue
	readAt time.Time
}

// NewCatalogues returns Catalogues. They read the topic when they need it.
func NewCatalogues(b bus.Bus, topics oona.Topics, logger *slog.Logger) *Catalogues {
	return &Catalogues{bus: b, topics: topics, logger: logger, known: make(map[oona.CatalogueHash]*catalogue.Catalogue)}
}

// Find returns the catalogue of a hash. If it is not built in, Find reads the topic. It reads
// it at most every two seconds, and waits if necessary. One read is enough, because a catalogue
// is written before the record that refers to it. The error wraps ErrUnknownCatalogue if the
// catalogue does not exist.
func (c *Catalogues) Find(ctx context.Context, hash oona.CatalogueHash) (*catalogue.Catalogue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.known[hash]; found != nil {
		return found, nil
	}
	found, builtIn, err := catalogue.BuiltIn(hash)
	if err != nil {
		return nil, err
	}
	if !builtIn {
		if found, err = c.read(ctx, hash); err != nil {
			return nil, err
		}
	}
	c.known[hash] = found
	return found, nil
}

// ForWindows returns the catalogues for a window engine. own is the catalogue of a log
// that does not name one.
func (c *Catalogues) ForWindows(ctx context.Context, own *catalogue.Catalogue) windows.Catalogues {
	return func(hash oona.CatalogueHash) (windows.Catalogue, error) {
		if hash == (oona.CatalogueHash{}) {
			return own.Metric, nil
		}
		found, err := c.Find(ctx, hash)
		if errors.Is(err, ErrUnknownCatalogue) {
			return nil, fmt.Errorf("%w: %w", windows.ErrCatalogue, err)
		}
		if err != nil {
			return nil, err
		}
		return found.Metric, nil
	}
}

func (c *Catalogues) read(ctx context.Context, hash oona.CatalogueHash) (*catalogue.Catalogue, error) {
	wait := time.NewTimer(time.Until(c.readAt.Add(rereadAfter)))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return nil, fmt.Errorf("find the catalogue %s: %w", hash, ctx.Err())
	}
	s, err := Read(ctx, c.bus, c.topics, c.logger)
	if err != nil {
		return nil, fmt.Errorf("find the catalogue %s: %w", hash, err)
	}
	c.readAt = time.Now()
	found, known, err := s.Catalogue(hash)
	if err == nil && !known {
		err = fmt.Errorf("%w: %s is neither built into this version nor in %s; write it there with: oona topics apply --catalogue FILE, or upgrade this program if a later version has written the log", ErrUnknownCatalogue, hash, c.topics.Settings)
	}
	return found, err
}
