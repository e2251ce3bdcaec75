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
	Reason string `json:"reason"` // "missing" or "denied": it may not be described or not be read
	Err    error  `json:"-"`      // wraps bus.ErrNoTopic or bus.ErrDenied
}

// look finds out which records the topics have. It asks for each topic separately and at the same
// time, because a bus answers only after seconds that a topic does not exist.
func (a *audit) look(ctx context.Context) error {
	topics := a.Topics.AllEvents()
	found, failed := make([]map[string][]bus.Extent, len(topics)), make([]error, len(topics))
	var asking sync.WaitGroup
	for i, topic := range topics {
		asking.Go(func() { found[i], failed[i] = a.log.Extents(ctx, topic) })
	}
	asking.Wait()
	a.extents = make(map[string][]bus.Extent)
	for i, topic := range topics {
		if err := failed[i]; topic == a.Topics.RunEnded {
			a.endExtents, a.noEnds = found[i][topic], err
		} else if err == nil {
			a.extents[topic] = found[i][topic]
		} else if !a.leaveOut(topic, err) {
			return err
		}
	}
	return a.anyLeft()
}

// leaveOut leaves a topic out of the audit from now on, if the error says that it does not exist or may
// not be read. For other errors it returns false.
func (a *audit) leaveOut(topic string, err error) bool {
	var reason string
	switch {
	case errors.Is(err, bus.ErrNoTopic):
		reason = "missing"
	case errors.Is(err, bus.ErrDenied):
		reason = "denied"
	default:
		return false
	}
	delete(a.extents, topic)
	a.summary.Unread = append(a.summary.Unread, Unread{topic, reason, err})
	return true
}

// anyLeft returns an error if no topic can be read.
func (a *audit) anyLeft() error {
	if len(a.extents) > 0 {
		return nil
	}
	return fmt.Errorf("none of the %d topics can be read; the error of the first is: %w", len(a.summary.Unread), a.summary.Unread[0].Err)
}
