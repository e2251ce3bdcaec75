package ingest

import (
	"context"
	"time"
)

// What a client may use of the processors while others send depends on whether the
// processors have time: then it is its share of them. When work waits for a processor, it
// is less, down to leastPart of that.
const (
	pressureTick = 10 * time.Millisecond
	lateTick     = time.Millisecond // a tick that is later shows that work waits
	leastPart    = 1. / 8
	lessOften    = .7  // what is left of it after such a tick
	moreAgain    = 1.1 // times what it was after another
)

// watchProcessors adapts what a client may use while one wants more than that. It returns
// when ctx ends.
func (s *sharing) watchProcessors(ctx context.Context) {
	ticker := time.NewTicker(pressureTick)
	defer ticker.Stop()
	for {
		ticker.Stop()
		select {
		case <-s.owing:
		case <-ctx.Done():
			return
		}
		ticker.Reset(pressureTick)
		for idle := 0; idle < int(othersFor/pressureTick); idle++ {
			due := time.Now().Add(pressureTick)
			select {
			case <-ticker.C:
				s.adapt(time.Since(due))
			case <-ctx.Done():
				return
			}
			select {
			case <-s.owing:
				idle = 0
			default:
			}
		}
	}
}

// adapt changes what a client may use after a tick that was late by some time.
func (s *sharing) adapt(late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late > lateTick {
		s.processors = max(s.processors*lessOften, s.most*leastPart)
		return
	}
	s.processors = min(s.processors*moreAgain, s.most)
}
