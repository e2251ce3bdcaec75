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

// GroupInterval is the time between two checks of a consumer group.
const GroupInterval = time.Minute

// ErrSharedGroup is returned if a consumer group has members that read another topic, for
// example those of an installation with another prefix. No record is lost, because partitions
// are assigned and committed by topic. But whenever a member starts or ends, both installations
// are interrupted. Members with the same instance name fence each other. And commits can be
// restored only while both installations are stopped.
var ErrSharedGroup = errors.New("the consumer group has members that read another topic")

// Group finds members of a worker's consumer group that read another topic than it does.
type Group struct {
	Bus    bus.Groups
	Flag   string // the flag that sets the name of the group
	Name   string
	Topics []string // the topics that the workers of the group read
	Logger *slog.Logger
}

// Start returns ErrSharedGroup if a worker must not join its group. While the group rebalances, it
// is not known which topics the members read. Start then returns nil, and Run checks again later.
func (g Group) Start(ctx context.Context) error {
	err := g.look(ctx)
	if err != nil && !errors.Is(err, ErrSharedGroup) {
		g.Logger.Warn("cannot find out whether the consumer group has members that read another topic; the worker starts, and checks this again", "err", err)
		return nil
	}
	return err
}

// Run checks the group regularly until ctx ends. It logs when the group becomes shared. Start cannot
// detect this if two installations start at the same time.
func (g Group) Run(ctx context.Context) error {
	shared := false
	for bus.Pause(ctx, GroupInterval) {
		err := g.look(ctx)
		switch {
		case errors.Is(err, ErrSharedGroup):
			if !shared {
				g.Logger.Error("two installations share a consumer group; give one of them another group", "err", err)
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
