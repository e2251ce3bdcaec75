package ingest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
)

// crowd returns leases of n bodies that are being received, each of a client of its own, of a memory
// with the given number of steps.
func crowd(t *testing.T, steps int64, n int) (*share, []*receiving) {
	t.Helper()
	memory := newBudget(steps * leaseStep).share(0)
	var bodies []*receiving
	for i := range n {
		bodies = append(bodies, receive(t, memory, fmt.Sprint(i)))
	}
	return memory, bodies
}

// receiving is a body that is being received.
type receiving struct {
	*lease
	interrupted chan struct{}
}

func receive(t *testing.T, memory *share, client string) *receiving {
	by := newSharing(.5, nil, nil, nil, nil).join(clientKey{name: client}, time.Now())
	r := &receiving{memory.lease(t.Context(), by), make(chan struct{})}
	r.yields(func() { close(r.interrupted) })
	return r
}

// grow grows by steps, one each millisecond, and reports whether it has got all of them.
func (r *receiving) grow(steps int) bool {
	defer r.end()
	for range steps {
		if !r.Grow(leaseStep) {
			return false
		}
		select {
		case <-time.After(time.Millisecond):
		case <-r.interrupted:
			return false
		}
	}
	return r.prevails()
}

// Large bodies that arrive together need much more memory than there is. The oldest is always taken,
// and if those that are refused are sent again, all are taken.
func TestLargeBodiesAtTheSameTime(t *testing.T) {
	for _, steps := range []int{20, 45, 100} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory, bodies := crowd(t, 100, 20)
				for len(bodies) > 0 {
					took := make([]bool, len(bodies))
					var growing sync.WaitGroup
					for i, l := range bodies {
						growing.Go(func() { took[i] = l.grow(steps) })
					}
					growing.Wait()
					if memory.inUse() != 0 || len(memory.line) != 0 || len(memory.yielding) != 0 {
						t.Fatalf("%d bytes are in use, %d wait", memory.inUse(), len(memory.line))
					}
					if !took[0] {
						t.Fatalf("the oldest of %d is refused", len(bodies))
					}
					var again []*receiving
					for i := range bodies {
						if !took[i] {
							again = append(again, receive(t, memory, fmt.Sprint(i)))
						}
					}
					t.Logf("%d of %d are taken", len(bodies)-len(again), len(bodies))
					bodies = again
				}
			})
		})
	}
}

// A body that is being received waits for memory, but not for long, and only until its request ends.
// One that was received waits only if others are refused for it.
func TestMemoryThatIsNeverFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, bodies := crowd(t, 100, 3)
		memory.force(100 * leaseStep)
		ctx, cancel := context.WithCancel(t.Context())
		bodies[1].ctx = ctx
		bodies[2].prevails()
		bodies[2].lead()
		took := make([]time.Duration, len(bodies))
		var growing sync.WaitGroup
		for i, l := range bodies {
			growing.Go(func() {
				began := time.Now()
				if l.Grow(10 * leaseStep) {
					t.Error("it has got memory that was not free")
				}
				took[i] = time.Since(began)
				if l.Grow(10*leaseStep) || time.Since(began) != took[i] {
					t.Errorf("after %s it waits again, until %s", took[i], time.Since(began))
				}
				l.end()
			})
			synctest.Wait()
		}
		if len(memory.line) != 2 {
			t.Errorf("%d wait", len(memory.line))
		}
		time.Sleep(memoryWait / 2)
		cancel()
		growing.Wait()
		if want := []time.Duration{memoryWait, memoryWait / 2, 0}; fmt.Sprint(took) != fmt.Sprint(want) {
			t.Errorf("they waited %s, want %s", took, want)
		}
		if len(memory.line) != 0 || memory.inUse() != 100*leaseStep {
			t.Errorf("%d bytes are in use, %d wait", memory.inUse(), len(memory.line))
		}
	})
}

// For an older body, as many younger ones are refused as necessary, the youngest first. None is
// refused if that would not be enough.
func TestYoungerBodiesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, bodies := crowd(t, 100, 5)
		for _, l := range bodies[1:] {
			if !l.Grow(25 * leaseStep) {
				t.Fatal("there is no memory")
			}
		}
		bodies[0].lead() // so that it does not wait without a reason
		refused := func() (which []int) {
			for i, l := range bodies {
				if l.refused.Load() {
					which = append(which, i)
				}
			}
			return which
		}
		if bodies[0].Grow(101*leaseStep) || len(refused()) != 0 {
			t.Errorf("%v are refused in vain", refused())
		}
		var ending sync.WaitGroup
		for _, l := range bodies[1:] {
			ending.Go(func() {
				select {
				case <-l.interrupted:
				case <-time.After(time.Minute):
				}
				l.end()
			})
		}
		if !bodies[0].Grow(30*leaseStep) || fmt.Sprint(refused()) != "[3 4]" {
			t.Errorf("%v are refused", refused())
		}
		bodies[0].end()
		ending.Wait()
		if memory.inUse() != 0 {
			t.Errorf("%d bytes are in use", memory.inUse())
		}
	})
}

// One that waits and has no memory yet is not refused, as it has nothing to give back.
func TestNothingToGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, bodies := crowd(t, 100, 3)
		if !bodies[1].Grow(60 * leaseStep) {
			t.Fatal("there is no memory")
		}
		var growing sync.WaitGroup
		growing.Go(func() {
			if !bodies[2].Grow(50 * leaseStep) {
				t.Error("the youngest gets no memory")
			}
			bodies[2].end()
		})
		growing.Go(func() {
			<-bodies[1].interrupted
			bodies[1].end()
		})
		synctest.Wait()
		if len(memory.line) != 1 {
			t.Fatalf("%d wait", len(memory.line))
		}
		if !bodies[0].Grow(80*leaseStep) || !bodies[1].refused.Load() {
			t.Error("the second body is not refused for the oldest")
		}
		bodies[0].end()
		growing.Wait()
		if memory.inUse() != 0 {
			t.Errorf("%d bytes are in use", memory.inUse())
		}
	})
}

// A small request that waits is not held up by large ones before it, once there is memory.
func TestSmallOneDoesNotWaitForLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, bodies := crowd(t, 100, 2)
		memory.force(100 * leaseStep)
		var growing sync.WaitGroup
		for i, n := range []int{90 * leaseStep, 1000} {
			growing.Go(func() {
				began := time.Now()
				if got := bodies[i].Grow(n); got != (i == 1) || i == 1 && time.Since(began) != memoryWait/2 {
					t.Errorf("body %d got memory: %t, after %s", i, got, time.Since(began))
				}
				bodies[i].end()
			})
			synctest.Wait()
		}
		time.Sleep(memoryWait / 2)
		memory.free(50*leaseStep, nil)
		growing.Wait()
	})
}

// Requests that find no memory while they are decoded take no slots from small ones.
func TestWaitingForMemoryTakesNoSlots(t *testing.T) {
	big := gzipped(bomb(t, 3))
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
		s.frames.force(s.cfg.MaxMemoryBytes*7/8 + 1)
		var served sync.WaitGroup
		for i := range 200 {
			served.Go(func() { postFrom(s, fmt.Sprintf("10.0.1.%d:1", i), "gzip", big) })
		}
		synctest.Wait()
		began := time.Now()
		if w := postFrom(s, "10.0.0.1:1", "", frames(nil)); w.Code != http.StatusOK || time.Since(began) > 0 {
			t.Errorf("a small body is answered %d after %s: %s", w.Code, time.Since(began), w.Body)
		}
		served.Wait()
	})
}

// A connection whose body is refused for an older one gets 429 at once, and not 408, although it
// has sent nothing for a while.
func TestRefusedWhileItIsReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
		listener, end := serve(t, s)
		older := s.frames.lease(t.Context(), s.sharing.join(clientKey{name: "older"}, time.Now()))
		conn := listener.dial()
		var sending sync.WaitGroup
		sending.Go(func() {
			_, _ = io.WriteString(conn, postHeader+"Content-Length: 1000000\r\n\r\n"+strings.Repeat("x", 500_000)) // the answer tells
		})
		synctest.Wait()
		if len(s.frames.yielding) != 1 {
			t.Fatalf("%d bodies are being received", len(s.frames.yielding))
		}
		began := time.Now()
		if !older.Grow(int(s.cfg.MaxMemoryBytes) - leaseStep) {
			t.Error("the older one gets no memory")
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(answer, "HTTP/1.1 429") || time.Since(began) != 0 {
			t.Errorf("after %s the answer is %q, %v", time.Since(began), answer, err)
		}
		conn.Close()
		sending.Wait()
		older.end()
		older.by = nil
		end()
		if s.frames.inUse() != 0 {
			t.Errorf("%d bytes are in use", s.frames.inUse())
		}
	})
}

// Only so many large bodies are decoded at the same time. Further ones wait, and meanwhile they may be
// refused for an older request that needs memory. Small ones do not wait.
func TestLargeBodiesWaitToBeDecoded(t *testing.T) {
	var large []byte
	for sequence := int64(0); len(large) <= largeBody; sequence++ {
		large = append(large, frames(func(f *oona.Frame) { manySeeds(2_000)(f); f.Sequence = sequence })...)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
		pool := s.sharing.pools[forLarge].slots
		var decoding []*client
		for i := range cap(pool) {
			by := s.sharing.join(clientKey{name: fmt.Sprint(i)}, time.Now())
			if by.try(forLarge) != entered {
				t.Fatalf("only %d of %d can be decoded", i, cap(pool))
			}
			decoding = append(decoding, by)
		}
		older := s.frames.lease(t.Context(), decoding[0])
		answer := func(from string, body []byte, code int, after time.Duration) {
			t.Helper()
			began := time.Now()
			if w := postFrom(s, from, "", body); w.Code != code || time.Since(began) != after {
				t.Errorf("%d bytes are answered %d after %s, want %d after %s: %s", len(body), w.Code, time.Since(began), code, after, w.Body)
			}
		}
		answer("10.0.0.1:1", frames(nil), http.StatusOK, 0)
		answer("10.0.0.1:1", large, http.StatusTooManyRequests, shareWait)
		time.AfterFunc(shareWait/2, func() {
			if !older.Grow(int(s.cfg.MaxMemoryBytes) - leaseStep) {
				t.Error("the older one gets no memory")
			}
			older.end()
		})
		answer("10.0.0.1:1", large, http.StatusTooManyRequests, shareWait/2)
		time.AfterFunc(shareWait/2, func() { decoding[1].exit(forLarge) })
		answer("10.0.0.1:1", large, http.StatusOK, shareWait/2)
		if len(pool) != cap(pool)-1 || s.frames.inUse() != 0 {
			t.Errorf("%d of %d are decoded, %d bytes are in use", len(pool), cap(pool), s.frames.inUse())
		}
	})
}
