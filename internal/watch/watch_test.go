package watch_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/watch"
)

// If ctx ends while a command subscribes to a topic, the command returns no error, as when ctx ends
// later.
func TestEndedWhileItSubscribes(t *testing.T) {
	for name, follow := range map[string]func(context.Context, bus.Reader) error{
		"address": func(ctx context.Context, reader bus.Reader) error {
			return watch.Follow(ctx, reader, watch.Options{}, io.Discard)
		},
		"layers": func(ctx context.Context, reader bus.Reader) error {
			return watch.FollowLayers(ctx, reader, watch.LayersOptions{}, watch.Screen{Out: io.Discard})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := follow(ctx, memory.Away{}); !errors.Is(err, bus.ErrUnreachable) {
				t.Errorf("while the bus does not answer: %v, want %v", err, bus.ErrUnreachable)
			}
			if err := follow(ctx, memory.Away{Asked: cancel}); err != nil || ctx.Err() == nil {
				t.Errorf("%v, want nil", err)
			}
		})
	}
}
