package watch_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/internal/watch"
)

var errAway = errors.New("the bus is away")

// away is a bus that does not answer. If ended is set, the user ends the command meanwhile.
type away struct{ ended context.CancelFunc }

func (b away) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	if b.ended != nil {
		b.ended()
	}
	return nil, errAway
}

func (away) Close() error { return nil }

// A command that is ended while it asks the bus ends as one that reads from it: without an
// error.
func TestEndedWhileItSubscribes(t *testing.T) {
	for name, follow := range map[string]func(context.Context, message.Subscriber) error{
		"address": func(ctx context.Context, bus message.Subscriber) error {
			return watch.Follow(ctx, bus, watch.Options{}, io.Discard)
		},
		"layers": func(ctx context.Context, bus message.Subscriber) error {
			return watch.FollowLayers(ctx, bus, watch.LayersOptions{}, watch.Screen{Out: io.Discard})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := follow(ctx, away{}); !errors.Is(err, errAway) {
				t.Errorf("while the bus is away: %v, want %v", err, errAway)
			}
			if err := follow(ctx, away{cancel}); err != nil || ctx.Err() == nil {
				t.Errorf("%v, want nil", err)
			}
		})
	}
}
