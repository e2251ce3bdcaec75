package buswatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// GroupInterval is the time between two looks at a consumer group.
const GroupInterval = time.Minute

// ErrSharedGroup is returned if a consumer group has members that read another topic, for
// example those of an installation with another prefix. No record is lost, as partitions
// are assigned and committed by topic. But each start and end of a member interrupts both
// installations, equal instances fence each other, and commits can be restored only while
// both are stopped.
var ErrSharedGroup = errors.New("the consumer group has members that read another topic")

// Group finds members of a worker's consumer group that read another topic than it does.
type Group struct {
	Bus    bus.Groups
	Flag   string // that names the group
	Name   string
	Topics []string // that its workers read
	Logger *slog.Logger
}

// Start returns ErrSharedGroup if a worker must not join its group. While the group
// rebalances, it is not known which topics are read; Run looks again.
func (g Group) Start(ctx context.Context) error {
	err := g.look(ctx)
	if err != nil && !errors.Is(err, ErrSharedGroup) {
		g.Logger.Warn("not known whether the consumer group has members that read another topic", "err", err)
		return nil
	}
	return err
}

// Run looks regularly until ctx ends. It logs when the group becomes shared: installations
// that start at the same time do not see each other before.
func (g Group) Run(ctx context.Context) error {
	shared := false
	for bus.Pause(ctx, GroupInterval) {
		err := g.look(ctx)
		switch {
		case errors.Is(err, ErrSharedGroup):
			if !shared {
				g.Logger.Error("two installations share a consumer group", "err", err)
			}
			shared = true
		case err == nil: // otherwise it is not known
			shared = false
		}
	}
	return nil
}

func (g Group) look(ctx context.Context) error {
	members, err := g.Bus.Members(ctx, g.Name)
	if err != nil {
		return err
	}
	others := make(map[string]bool)
	for _, m := range members {
		for topic := range m.Partitions {
			if !slices.Contains(g.Topics, topic) {
				others[topic] = true
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSharedGroup, &oona.FieldError{Field: g.Flag, Reason: fmt.Sprintf(
		"members of %s read %s, and this worker reads %s; give the workers of each --prefix another %s, or stop the others first",
		g.Name, strings.Join(slices.Sorted(maps.Keys(others)), ", "), strings.Join(g.Topics, " and "), g.Flag)})
}
