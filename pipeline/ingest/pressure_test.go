package ingest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What a client may use falls while ticks are late, not below a part of its share, and
// rises again.
func TestProcessorsUnderPressure(t *testing.T) {
	s := newSharing(.5, nil, nil, nil, nil)
	s.adapt(lateTick)
	if s.processors != s.most {
		t.Errorf("after a tick in time a client may use %g processors, want %g", s.processors, s.most)
	}
	for range 100 {
		s.adapt(2 * lateTick)
	}
	if s.processors != s.most*leastPart {
		t.Errorf("under pressure a client may use %g processors, want %g", s.processors, s.most*leastPart)
	}
	for range 210 { // 1.01^209 = 8
		s.adapt(0)
	}
	if s.processors != s.most {
		t.Errorf("when the pressure is over a client may use %g processors, want %g", s.processors, s.most)
	}
}

// A client's limit depends on how many ticks are late: few late ticks, as on every shared
// machine, cost it little, and one in ten brings it to the least.
func TestLateTicksThatCount(t *testing.T) {
	for _, c := range []struct {
		every       int // one tick of so many is late
		least, most float64
	}{
		{50, .6, 1},
		{10, leastPart, leastPart * 1.2},
	} {
		s := newSharing(.5, nil, nil, nil, nil)
		lowest, highest := s.most, 0.
		for n := range 2000 {
			late := time.Duration(0)
			if n%c.every == 0 {
				late = 2 * lateTick
			}
			s.adapt(late)
			if n >= 1000 {
				lowest, highest = min(lowest, s.processors), max(highest, s.processors)
			}
		}
		if lowest < c.least*s.most || highest > c.most*s.most {
			t.Errorf("with one late tick of %d a client may use %g to %g of its share, want %g to %g", c.every, lowest/s.most, highest/s.most, c.least, c.most)
		}
	}
}

// The processors are watched while a client wants more than it may use, and a second
// beyond.
func TestProcessorsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharing(.5, nil, nil, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { s.watchProcessors(ctx) })
		s.processors = s.most * leastPart
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.processors != s.most*leastPart {
			t.Error("they are watched although no client wants them")
		}
		s.join(clientKey{name: "other"}, time.Now())
		s.join(clientKey{name: "greedy"}, time.Now()).charge(time.Second)
		time.Sleep(othersFor)
		synctest.Wait()
		if s.processors != s.most {
			t.Errorf("a second after a client wanted them, it may use %g, want %g", s.processors, s.most)
		}
		cancel()
		watching.Wait()
	})
}
