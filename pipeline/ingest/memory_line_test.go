package ingest

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/morphogenetic/oona/schemas/avro"
)

// crowd returns n leases of as many clients, or of one client, of a memory with the given number of
// steps.
func crowd(t *testing.T, steps int64, n int, oneClient bool) (*share, []*lease) {
	t.Helper()
	s := newSharing(.5, nil, nil, nil, nil)
	memory := newBudget(steps*leaseStep).share(0, steps*leaseStep)
	var leases []*lease
	for i := range n {
		key := clientKey{name: fmt.Sprint(i)}
		if oneClient {
			key.name = "one"
		}
		leases = append(leases, memory.lease(t.Context(), s.join(key, time.Now())))
	}
	return memory, leases
}

// Large bodies that arrive together need much more memory than there is. All get what they need, one
// after the other, whether they come from many clients or from one.
func TestLargeBodiesAtTheSameTime(t *testing.T) {
	for _, oneClient := range []bool{false, true} {
		t.Run(fmt.Sprintf("one client: %t", oneClient), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory, leases := crowd(t, 100, 20, oneClient)
				if refused := growTogether(memory, leases, 45); len(refused) != 0 {
					t.Errorf("%d of %d were refused", len(refused), len(leases))
				}
				if memory.inUse() != 0 || memory.leader != nil || len(memory.line) != 0 {
					t.Errorf("%d bytes are in use, %d wait", memory.inUse(), len(memory.line))
				}
			})
		})
	}
}

// If the reserve is not enough for the leader, others are refused at once, and not after both have
// waited. So the bodies of clients that repeat what was refused are all taken.
func TestBodiesThatNeedAlmostAllMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, leases := crowd(t, 100, 20, false)
		for tries := 0; len(leases) > 0; tries++ {
			began := time.Now()
			refused := growTogether(memory, leases, 90)
			t.Logf("%d of %d are taken in %s", len(leases)-len(refused), len(leases), time.Since(began))
			if len(refused) == len(leases) || memory.inUse() != 0 || memory.refused != nil {
				t.Fatalf("try %d: %d were refused; %d bytes are in use", tries, len(refused), memory.inUse())
			}
			for _, l := range refused {
				if tries == 0 && l.waited >= lineWait {
					t.Errorf("it was refused after %s", l.waited)
				}
			}
			leases = again(t, refused)
		}
	})
}

// growTogether lets leases grow at the same time, and returns those that were refused.
func growTogether(memory *share, leases []*lease, steps int) (refused []*lease) {
	var growing sync.WaitGroup
	var mu sync.Mutex
	for _, l := range leases {
		growing.Go(func() {
			defer l.end()
			for range steps {
				if !l.Grow(leaseStep) {
					mu.Lock()
					defer mu.Unlock()
					refused = append(refused, l)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	growing.Wait()
	return refused
}

// again returns new leases for the clients of leases that have ended.
func again(t *testing.T, ended []*lease) (leases []*lease) {
	for i, l := range ended {
		by := newSharing(.5, nil, nil, nil, nil).join(clientKey{name: fmt.Sprint(i)}, time.Now())
		leases = append(leases, l.share.lease(t.Context(), by))
	}
	return leases
}

// A lease does not wait forever: the leader waits longer than the others, and all end with their
// request.
func TestMemoryThatIsNeverFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, leases := crowd(t, 100, 3, false)
		memory.force(100 * leaseStep)
		ctx, cancel := context.WithCancel(t.Context())
		leases[2].ctx = ctx
		took := make([]time.Duration, len(leases))
		var growing sync.WaitGroup
		for i, l := range leases {
			growing.Go(func() {
				began := time.Now()
				if l.Grow(10 * leaseStep) {
					t.Error("it has got memory that was not free")
				}
				took[i] = time.Since(began)
				if l.Grow(10*leaseStep) || time.Since(began) != took[i] && i != 2 {
					t.Errorf("after %s it waits again, until %s", took[i], time.Since(began))
				}
			})
			synctest.Wait()
		}
		if memory.leader != leases[0] || len(memory.line) != 3 {
			t.Fatalf("%d wait", len(memory.line))
		}
		time.Sleep(time.Second)
		cancel()
		growing.Wait()
		if want := []time.Duration{lineWait + leaderWait, lineWait, time.Second}; fmt.Sprint(took) != fmt.Sprint(want) {
			t.Errorf("they waited %s, want %s", took, want)
		}
		for _, l := range leases {
			l.end()
		}
		if memory.leader != nil || len(memory.line) != 0 || memory.inUse() != 100*leaseStep {
			t.Errorf("%d bytes are in use, %d wait", memory.inUse(), len(memory.line))
		}
	})
}

// Clients take turns at leading, so that one with many requests does not keep out the others. The
// next leader can use what the last one has freed before small requests do.
func TestTurnsAtLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, leases := crowd(t, 100, 4, true)
		_, other := crowd(t, 1, 1, false)
		leases = append(leases, other[0])
		leases[4].share = memory
		memory.force(100 * leaseStep)
		var mu sync.Mutex
		var order []int
		var growing sync.WaitGroup
		for i, l := range leases {
			growing.Go(func() {
				if l.Grow(60 * leaseStep) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
				}
				l.trim() // as if it were published
			})
			synctest.Wait()
		}
		for range leases {
			memory.free(60*leaseStep, nil)
			synctest.Wait()
		}
		growing.Wait()
		if fmt.Sprint(order) != "[0 4 1 2 3]" {
			t.Errorf("the order is %v", order)
		}
	})
}

// Requests with large bodies that ingest gets at the same time are all answered with 200, although
// only one or two fit into the memory together.
func TestLargeRequestsAtTheSameTime(t *testing.T) {
	f := goodFrame(0)
	manySeeds(3_000)(f)
	manyMetrics(10)(f)
	var body []byte
	for len(body) < 7<<20 {
		f.Sequence++
		body = avro.AppendFrame(body, f)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, keepsNothing(func(context.Context, []*message.Message) error { time.Sleep(10 * time.Millisecond); return nil }), func(c *Config) {
			c.MaxMemoryBytes = c.leastMemory()
		})
		var served sync.WaitGroup
		var mu sync.Mutex
		codes := make(map[int]int)
		for range 40 {
			served.Go(func() {
				w := post(s, mediaAvro, body)
				mu.Lock()
				defer mu.Unlock()
				codes[w.Code]++
			})
		}
		served.Wait()
		if codes[http.StatusOK] != 40 || s.frames.inUse() != 0 {
			t.Errorf("answers are %v; %d bytes are in use", codes, s.frames.inUse())
		}
	})
}
