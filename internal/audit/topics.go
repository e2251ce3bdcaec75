package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/morphogenetic/oona/bus"
)

// Unread is a topic of events that does not exist, or that this program may not read.
type Unread struct {
	Topic  string `json:"topic"`
	Reason string `json:"reason"` // "missing" or "denied"
	Err    error  `json:"-"`      // wraps bus.ErrNoTopic or bus.ErrDenied
}

// look finds out which records the topics have. It asks for each topic separately and at the same
// time, because a bus answers only after seconds that a topic does not exist.
func (a *audit) look(ctx context.Context) error {
	topics := a.Topics.Events()
	found, failed := make([]map[string][]bus.Extent, len(topics)), make([]error, len(topics))
	var asking sync.WaitGroup
	for i, topic := range topics {
		asking.Go(func() { found[i], failed[i] = a.log.Extents(ctx, topic) })
	}
	asking.Wait()
	a.extents = make(map[string][]bus.Extent)
	for i, topic := range topics {
		switch err := failed[i]; {
		case err == nil:
			a.extents[topic] = found[i][topic]
		case errors.Is(err, bus.ErrNoTopic):
			a.summary.Unread = append(a.summary.Unread, Unread{topic, "missing", err})
		case errors.Is(err, bus.ErrDenied):
			a.summary.Unread = append(a.summary.Unread, Unread{topic, "denied", err})
		default:
			return err
		}
	}
	if len(a.extents) == 0 {
		return fmt.Errorf("none of the %d can be read; the first: %w", len(topics), failed[0])
	}
	return nil
}
