package ingest

import (
	"context"
	"time"
)

// While others send, a client may use its share of the processors as long as these are not all
// busy. When work waits for a processor, it may use less, down to leastPart of its share. The
// factors balance when one tick of 37 is late. If more are late, the client gets less. With a
// faster rise, the limit would settle where one tick of five is late, and so would the requests of
// the others.
const (
	pressureTick = 10 * time.Millisecond
	lateTick     = time.Millisecond // a tick that is later than this shows that work waits
	leastPart    = 1. / 8
	lessOften    = .7   // factor after such a tick
	moreAgain    = 1.01 // factor after any other tick
)

// watchProcessors adapts what a client may use, as long as some client wants more than that. It
// returns when ctx ends.
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
		s.restore()
	}
}

// adapt changes what a client may use, after a tick that was late by the given time.
func (s *sharing) adapt(late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late > lateTick {
		s.processors = max(s.processors*lessOften, s.most*leastPart)
		return
	}
	s.processors = min(s.processors*moreAgain, s.most)
}

// restore gives clients their share again after nobody has wanted more than that for a while.
func (s *sharing) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processors = s.most
}
