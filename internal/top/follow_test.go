package top

import (
	"context"
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

var errAway = errors.New("the bus is away")

// away is a bus that does not answer. If ended is set, the user quits meanwhile.
type away struct{ ended context.CancelFunc }

func (b away) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	if b.ended != nil {
		b.ended()
	}
	return nil, errAway
}

func (away) Close() error { return nil }

// If the user quits while the bus is asked, that is no error.
func TestEndedWhileItSubscribes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	none := func(Snapshot) error { return errors.New("there is nothing to show") }
	for _, tt := range []struct {
		bus  away
		want error
	}{{away{}, errAway}, {away{cancel}, nil}} {
		source := &Source{Rollups: tt.bus, Poller: &Poller{}}
		if err := source.Follow(ctx, none); !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
	}
}
