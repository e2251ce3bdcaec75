package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/windows"
)

// NameCatalogue sets the hash of the first built-in catalogue if a configuration names none,
// because that is the meaning of no hash. It does not do so for reducer 1: those records have no
// field for the hash, so that older aggregators can read them.
func NameCatalogue(c windows.Config) windows.Config {
	if c.Reducer > 1 && c.Catalogue == (oona.CatalogueHash{}) {
		c.Catalogue = oona.FirstCatalogue
	}
	return c
}

// Newest returns the configuration with the highest generation that is in effect in any
// partition, or the defaults if that is not known for any partition.
func (h *History) Newest() windows.Config {
	newest, found := windows.DefaultConfig(), false
	for _, p := range h.Partitions {
		c := p.Engine.Config()
		if c.Generation == 0 && (p.Unknown != nil || p.Empty()) {
			continue
		}
		if !found || c.Generation > newest.Generation {
			newest, found = c, true
		}
	}
	return newest
}

// furthestGeneration is the maximum distance of the next generation from the newest one.
// Generations can only grow, so a typing error could use up the numbers and prevent all further
// changes.
const furthestGeneration = 1000

// ErrLastGeneration means that there is no greater number for another configuration.
var ErrLastGeneration = errors.New("generation 2147483647 is the greatest possible number; to change the windows, create new topics (--prefix)")

// NextGenerations returns the smallest and the largest generation that a configuration may have
// after the newest one.
func NextGenerations(newest int32) (least, greatest int32, err error) {
	if newest == math.MaxInt32 {
		return 0, 0, ErrLastGeneration
	}
	return newest + 1, int32(min(int64(newest)+furthestGeneration, math.MaxInt32)), nil
}

// ManyInReach is the recommended maximum number of configurations for which frames may still
// arrive. Up to this number, the default number of timelines fits into a commit.
const ManyInReach = 32

// Crowded returns the first partition with ManyInReach configurations for which frames
// may still arrive, or nil.
func (h *History) Crowded() *Partition {
	for _, p := range h.Partitions {
		if len(p.Engine.Configurations()) >= ManyInReach {
			return p
		}
	}
	return nil
}

// Earliest returns the event time after which a configuration that is written now must begin,
// because frames of earlier times may arrive before it.
func (h *History) Earliest(now time.Time) (earliest oona.Micros) {
	for _, p := range h.Partitions {
		stamp := max(oona.MicrosOf(now), p.appendedAt)
		earliest = max(earliest, stamp+oona.Micros(p.Engine.Config().MaxSkew.Microseconds()))
	}
	return earliest
}

// VoidError says in which partition a configuration would have no effect, and why.
type VoidError struct {
	Partition int32
	Err       error
}

func (e *VoidError) Error() string {
	return fmt.Sprintf("it would be void in partition %d: %v", e.Partition, e.Err)
}

func (e *VoidError) Unwrap() error { return e.Err }

// Refuses returns a *VoidError if a configuration that is written now would have no effect in a
// partition. It considers only partitions for which it is known which configuration is in effect.
func (h *History) Refuses(c windows.Configuration, now time.Time) error {
	for _, p := range h.Partitions {
		if p.Unknown != nil {
			continue
		}
		if err := p.Engine.Refuses(c, oona.MicrosOf(now)); err != nil {
			return &VoidError{p.Number, err}
		}
	}
	return nil
}

// Note writes a configuration of the log to the settings topic, for the partitions in
// which it has an effect, or may have.
func (h *History) Note(ctx context.Context, topics oona.Topics, c windows.Configuration) error {
	var entries []settings.Entry
	for _, p := range h.Partitions {
		if p.Unknown != nil || p.Engine.Config().Generation == c.Config.Generation {
			entries = append(entries, settings.WindowsEntry(p.Number, c.Record()))
		}
	}
	return settings.Write(ctx, h.Bus, topics, entries...)
}
