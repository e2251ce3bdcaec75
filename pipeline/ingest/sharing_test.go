package ingest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// postFrom sends frames from an address.
func postFrom(s *Stage, address, coding string, body []byte) *httptest.ResponseRecorder {
	return postTyped(s, address, mediaAvro, body, "Content-Encoding", coding)
}

// postTyped sends frames of a media type from an address.
func postTyped(s *Stage, address, mediaType string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/frames", bytes.NewReader(body))
	r.RemoteAddr = address
	r.Header.Set("Content-Type", mediaType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// One client gets at most its share of the slots, however many requests it sends, and
// another client is served meanwhile. What waits is refused after a second.
func TestOneClientLeavesSlotsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newStage(t, keepsNothing(func(context.Context, []*message.Message) error { <-release; return nil }), func(c *Config) { c.MaxInFlight = 16 })
		var served sync.WaitGroup
		codes := make(chan int, 100)
		began := time.Now()
		flood := func(n int, address string) {
			for range n {
				served.Go(func() { codes <- postFrom(s, address, "", frames(nil)).Code })
			}
			synctest.Wait()
		}
		flood(50, "10.0.0.1:1000")
		if n := len(s.slots); n != 8 {
			t.Errorf("one client that wants everything has %d of 16 slots, want 8", n)
		}
		flood(50, "10.0.0.2:1000")
		if n := len(s.slots); n != 12 {
			t.Errorf("two clients that want everything have %d of 16 slots, want 12", n)
		}
		if n := len(s.sharing.clients); n != 2 {
			t.Errorf("%d clients are known, want 2", n)
		}
		// A third one does not wait.
		served.Go(func() {
			if w := postFrom(s, "10.0.0.3:1000", "", frames(nil)); w.Code != http.StatusOK || time.Since(began) != 2*time.Second {
				t.Errorf("a third client is answered %d after %s", w.Code, time.Since(began))
			}
		})
		synctest.Wait()
		if n := len(s.slots); n != 13 {
			t.Errorf("with a third client %d of 16 slots are taken, want 13", n)
		}
		time.Sleep(2 * time.Second)
		close(release)
		served.Wait()
		close(codes)
		counts := make(map[int]int)
		for code := range codes {
			counts[code]++
		}
		if counts[http.StatusOK] != 12 || counts[http.StatusTooManyRequests] != 88 {
			t.Errorf("the answers are %v, want 12 of 200 and 88 of 429", counts)
		}
		if len(s.slots) != 0 || len(s.sharing.clients) != 0 || len(s.sharing.pools[forFrames].queue) != 0 {
			t.Errorf("afterwards %d slots are taken, %d clients known, and %d wait", len(s.slots), len(s.sharing.clients), len(s.sharing.pools[forFrames].queue))
		}
	})
}

// A request that waits for a slot of its client gets it when another one ends, in order.
func TestRequestsWaitForTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, keepsNothing(func(context.Context, []*message.Message) error { time.Sleep(100 * time.Millisecond); return nil }), func(c *Config) { c.MaxInFlight = 4 })
		var served sync.WaitGroup
		began := time.Now()
		for range 16 {
			served.Go(func() {
				if w := postFrom(s, "10.0.0.1:1000", "", frames(nil)); w.Code != http.StatusOK {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
			})
		}
		served.Wait()
		if took := time.Since(began); took != 800*time.Millisecond {
			t.Errorf("16 requests, two at a time, took %s, want 800 ms", took)
		}
	})
}

// The problem of a refused request has its reason.
func TestShareIsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newStage(t, keepsNothing(func(context.Context, []*message.Message) error { <-release; return nil }), func(c *Config) { c.MaxInFlight = 2 })
		var first sync.WaitGroup
		first.Go(func() { postFrom(s, "10.0.0.1:1000", "", frames(nil)) })
		synctest.Wait()
		w := postFrom(s, "10.0.0.1:1001", "", frames(nil))
		if p := decodeProblem(t, w); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || p.Type != "urn:oona:problem:share" {
			t.Errorf("answered %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		close(release)
		first.Wait()
	})
}

// A client that disconnects while it waits does not get a slot.
func TestWaitingClientsMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 2)
		s := newSharing(.5, slots, nil, nil, nil)
		by := s.join(clientKey{name: "a"}, time.Now())
		if by.enter(t.Context(), forFrames, time.Hour) != entered {
			t.Fatal("the first has no slot")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if got := by.enter(ctx, forFrames, time.Hour); got != shareTaken {
				t.Errorf("one that is gone has the result %d", got)
			}
		})
		synctest.Wait()
		cancel()
		waiting.Wait()
		by.exit(forFrames)
		by.leave()
		if len(slots) != 0 || len(s.clients) != 0 {
			t.Errorf("%d slots are taken, %d clients known", len(slots), len(s.clients))
		}
	})
}

// A single request of a client may need as much memory as there is. Further ones get
// only the client's share.
func TestOneClientLeavesMemoryToOthers(t *testing.T) {
	s := newSharing(.5, nil, nil, nil, nil)
	memory := newBudget(1000).share(0)
	greedy, other := s.join(clientKey{name: "greedy"}, time.Now()), s.join(clientKey{name: "other"}, time.Now())
	leads, first, second := memory.lease(t.Context(), greedy), memory.lease(t.Context(), greedy), memory.lease(t.Context(), other)
	if !memory.try(400, leads) {
		t.Error("a single request does not get 400 of 1,000 bytes")
	}
	s.join(clientKey{name: "greedy"}, time.Now())
	for memory.try(10, first) {
	}
	if used := memory.inUse(); used < 480 || used > 500 {
		t.Errorf("one client has %d of 1,000 bytes, want a half", used)
	}
	if !memory.try(500, second) {
		t.Error("a single request of another client does not get the rest")
	}
	memory.free(500, other)
	memory.free(memory.inUse(), greedy)
	leads.end()
	first.end()
	second.end()
	if greedy.memory != 0 || other.memory != 0 {
		t.Errorf("the clients have %d and %d bytes", greedy.memory, other.memory)
	}
}

// A client that fills its share of the memory with bodies can still have one decoded, which may
// take what is free. Others get only the client's share.
func TestBodiesDoNotKeepOneFromBeingDecoded(t *testing.T) {
	s := newSharing(.5, nil, nil, nil, nil)
	memory := newBudget(1000 * leaseStep).share(0)
	key := clientKey{name: "greedy"}
	var bodies []*lease
	for range 4 {
		l := memory.lease(t.Context(), s.join(key, time.Now()))
		l.yields(func() { t.Error("it is refused, although nothing is older") })
		bodies = append(bodies, l)
	}
	for n := 1; bodies[n].Grow(leaseStep); n = n%3 + 1 { // the first one leads, and is slow
	}
	for i, l := range bodies[1:] {
		if !l.prevails() {
			t.Fatal("it is refused")
		}
		if l.lead(); l.Grow(300*leaseStep) != (i == 0) {
			t.Errorf("body %d of %d is decoded: %t", i, len(bodies), i != 0)
		}
	}
	if !bodies[2].overShare() {
		t.Error("it is not the client's share that refuses it")
	}
	bodies[1].end()
	if bodies[2].lead(); !bodies[2].Grow(300 * leaseStep) {
		t.Error("the next one is not decoded")
	}
	bodies[0].end()
	bodies[3].end()
	if bodies[2].end(); memory.inUse() != 0 || s.clients[key].leader != nil {
		t.Errorf("%d bytes are in use", memory.inUse())
	}
}

// Of one client, only so many requests are decoded at a time.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharing(.5, nil, nil, nil, nil)
		s.turns = 2
		one, other := s.join(clientKey{name: "one"}, time.Now()), s.join(clientKey{name: "other"}, time.Now())
		var decoding sync.WaitGroup
		began := time.Now()
		for range 10 {
			decoding.Go(func() {
				if !one.turn(t.Context()) {
					t.Error("there was no turn")
				}
				time.Sleep(time.Second)
				one.endTurn()
			})
		}
		synctest.Wait()
		if !other.turn(t.Context()) || time.Since(began) != 0 {
			t.Errorf("another client waited for %s", time.Since(began))
		}
		other.endTurn()
		decoding.Wait()
		if took := time.Since(began); took != 5*time.Second || one.turns != 0 {
			t.Errorf("ten requests, two at a time, took %s; %d turns are left", took, one.turns)
		}
	})
}

// Whose request it is does not depend on what a client can choose.
func TestWhoseRequestItIs(t *testing.T) {
	for peer, want := range map[string]string{
		"192.0.2.7:4000":               "192.0.2.7",
		"[::ffff:192.0.2.7]:5":         "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:80":    "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::1]:81":    "2001:db8:1:2::",
		"[fe80::1:2:3:4%eth0]:81":      "fe80::",
		"@":                            "invalid IP",
		"a pipe without an address :-": "invalid IP",
	} {
		if got := networkOf(peer); got.String() != want {
			t.Errorf("%s is %s, want %s", peer, got, want)
		}
	}
	if (clientKey{name: "192.0.2.7"}) == (clientKey{address: netip.MustParseAddr("192.0.2.7")}) {
		t.Error("a token may have the name of an address, and is another client")
	}
}

func TestClientShareIsChecked(t *testing.T) {
	for _, share := range []float64{0, -1, 1.1} {
		cfg := DefaultConfig()
		cfg.ClientShare = share
		if wrong, ok := errors.AsType[*oona.FieldError](cfg.Validate()); !ok || wrong.Field != "--client-share" {
			t.Errorf("%g is not refused", share)
		}
	}
}
