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

// Source makes snapshots.
type Source struct {
	Rollups  bus.Reader
	Poller   *Poller
	Board    watch.BoardOptions
	Interval time.Duration // time between two snapshots
	Notes    *Notes        // the last warning in Notes is shown as a fault; may be nil
	// Settled makes Follow wait with the first snapshot until all rollups that were there at the
	// start have been read and rates are known.
	Settled bool
}

var errRollups = errors.New("the reader of rollups has stopped")

// Follow calls take with snapshots until ctx ends or take returns an error. Follow returns that
// error, or nil if it is ErrEnough or ctx has ended.
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

// complete adds to a snapshot what does not come from a poll.
func (s *Source) complete(snapshot *Snapshot, board *watch.Board, now time.Time) {
	snapshot.Reading, snapshot.Layers = !board.CaughtUp(), board.Rows(now)
	if s.Notes != nil {
		if text, found := s.Notes.at(now); found {
			snapshot.Faults = append(snapshot.Faults, "log: "+text)
		}
	}
}

// ErrEnough ends Follow, if the function that Follow calls returns it.
var ErrEnough = errors.New("enough snapshots")

// slowAfter is the time without a snapshot after which Follow logs that it still waits.
const slowAfter = 10 * time.Second

// pollTimeout limits the time of a poll, so that a bus that does not answer is shown as a fault.
const pollTimeout = 10 * time.Second

// poll sends the result of a poll after each interval.
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
