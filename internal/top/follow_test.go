package top

import (
	"context"
	"errors"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
)

// If the user quits while the bus is asked, that is no error.
func TestEndedWhileItSubscribes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	none := func(Snapshot) error { return errors.New("there is nothing to show") }
	for _, tt := range []struct {
		bus  memory.Away
		want error
	}{{memory.Away{}, bus.ErrUnreachable}, {memory.Away{Asked: cancel}, nil}} {
		source := &Source{Rollups: tt.bus, Poller: &Poller{}}
		if err := source.Follow(ctx, none); !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
	}
}
