package top

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/watch"
)

// Source is what snapshots are made of.
type Source struct {
	Rollups  bus.Reader
	Poller   *Poller
	Board    watch.BoardOptions
	Interval time.Duration // between two snapshots
	Notes    *Notes        // whose warnings are shown as faults; nil: none
	// Settled says to make no snapshot before the rollups that were there have been read
	// and rates are known.
	Settled bool
}

var errRollups = errors.New("the reader of rollups has stopped")

// Follow calls take with snapshots until ctx ends or take returns an error, which Follow
// returns. If take returns ErrEnough, Follow returns nil.
func (s *Source) Follow(ctx context.Context, take func(Snapshot) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var polling sync.WaitGroup
	defer polling.Wait()
	defer cancel()
	board := watch.NewBoard(s.Board)
	health, performance, err := board.Subscribe(ctx, s.Rollups, s.Poller.Topics)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	polls := make(chan Snapshot)
	polling.Go(func() { s.poll(ctx, polls) })
	began, slow := time.Now(), false
	for taken := 0; ; {
		var msg *message.Message
		var open bool
		select {
		case <-ctx.Done():
			return nil
		case msg, open = <-health:
		case msg, open = <-performance:
		case snapshot := <-polls:
			now := time.Now()
			s.complete(&snapshot, board, now)
			if taken++; s.Settled && (taken < 2 || snapshot.Reading) {
				if snapshot.Reading && !slow && now.Sub(began) >= slowAfter {
					slow = true
					s.Board.Logger.Warn("the rollups that were on the bus at the start are still being read; nothing is shown before that")
				}
				continue
			}
			if err := take(snapshot); errors.Is(err, ErrEnough) {
				return nil
			} else if err != nil {
				return err
			}
			continue
		}
		if !open {
			if ctx.Err() != nil {
				return nil
			}
			return errRollups
		}
		board.Read(msg, time.Now())
		msg.Ack()
	}
}

// complete adds what does not come from a poll to a snapshot.
func (s *Source) complete(snapshot *Snapshot, board *watch.Board, now time.Time) {
	snapshot.Reading, snapshot.Layers = !board.CaughtUp(), board.Rows(now)
	if s.Notes != nil {
		if text, found := s.Notes.at(now); found {
			snapshot.Faults = append(snapshot.Faults, "log: "+text)
		}
	}
}

// ErrEnough is returned by the function that Follow calls, to end it.
var ErrEnough = errors.New("enough snapshots")

// slowAfter is how long nothing is shown before that is logged.
const slowAfter = 10 * time.Second

// pollTimeout is the most time for a poll, so that a bus that is away is shown as such.
const pollTimeout = 10 * time.Second

// poll sends what the bus says at each interval.
func (s *Source) poll(ctx context.Context, polls chan<- Snapshot) {
	ticker := time.NewTicker(s.Interval)
	defer ticker.Stop()
	for {
		within, cancel := context.WithTimeout(ctx, pollTimeout)
		snapshot := s.Poller.Poll(within, time.Now())
		cancel()
		select {
		case polls <- snapshot:
		case <-ctx.Done():
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
