package ingest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// largeFrames returns frames of more than size bytes.
func largeFrames(size int) (body []byte) {
	for sequence := int64(0); len(body) <= size; sequence++ {
		body = append(body, frames(func(f *oona.Frame) { manySeeds(2_000)(f); f.Sequence = sequence })...)
	}
	return body
}

// onePlace returns a stage that decodes one large body at a time.
func onePlace(t *testing.T, change func(*Config)) *Stage {
	t.Helper()
	s := newStage(t, &acknowledging{}, change)
	s.sharing.pools[forLarge].slots = make(chan struct{}, 1)
	return s
}

// stuck sends a large body of one client, which waits for something, and expects that the large body of
// another one is accepted at once. Then the first one goes on, and is answered with the status.
func stuck(t *testing.T, s *Stage, coding string, body []byte, goOn func(), status int) {
	t.Helper()
	var served sync.WaitGroup
	var first *httptest.ResponseRecorder
	served.Go(func() { first = postFrom(s, "10.0.0.1:1", coding, body) })
	time.Sleep(100 * time.Millisecond)
	if first != nil {
		t.Fatalf("the first one does not wait, but is answered %d: %s", first.Code, first.Body)
	}
	if n := len(s.sharing.pools[forLarge].slots); n != 0 {
		t.Errorf("%d places are taken by one that waits", n)
	}
	began := time.Now()
	if w := postFrom(s, "10.0.0.2:1", "", largeFrames(largeBody)); w.Code != http.StatusOK || time.Since(began) != 0 {
		t.Errorf("the body of another client is answered %d after %s: %s", w.Code, time.Since(began), w.Body)
	}
	goOn()
	served.Wait()
	if first.Code != status {
		t.Errorf("the first one is answered %d, want %d: %s", first.Code, status, first.Body)
	}
	if n := len(s.sharing.pools[forLarge].slots); n != 0 || s.frames.inUse() != 0 {
		t.Errorf("%d places are taken at the end, %d bytes are in use", n, s.frames.inUse())
	}
}

// A large body keeps no place from others while it waits for the schema registry.
func TestLargeBodyWaitsForTheRegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	config := fake.Config
	var body []byte
	for sequence := int64(0); len(body) <= largeBody; sequence++ {
		body = append(body, registered(t, id, frames(func(f *oona.Frame) { manySeeds(2_000)(f); f.Sequence = sequence }))...)
	}
	for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config.Transport = fake
				release := make(chan struct{})
				fake.AnswerBy(func(w http.ResponseWriter, r *http.Request) {
					<-release
					if status != http.StatusOK {
						w.WriteHeader(status)
						return
					}
					fake.Handler().ServeHTTP(w, r)
				})
				s := onePlace(t, withRegistry(t, config))
				stuck(t, s, "", body, func() { close(release) }, status)
			})
		})
	}
}

// Nor while others of its client are decoded, or while its client has its share of the slots.
func TestLargeBodyWaitsForItsClient(t *testing.T) {
	of := func(s *Stage) *client { return s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now()) }
	t.Run("turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := onePlace(t, nil)
			by := of(s)
			for range s.sharing.turns {
				by.turn(t.Context())
			}
			stuck(t, s, "", largeFrames(largeBody), by.endTurn, http.StatusOK)
		})
	})
	t.Run("slot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := onePlace(t, func(c *Config) { c.MaxInFlight, c.MaxTensorRequests = 4, 1 })
			by := of(s)
			for by.try(forFrames) == entered {
			}
			stuck(t, s, "", largeFrames(largeBody), func() { by.exit(forFrames) }, http.StatusOK)
		})
	})
}

// Nor while its client must wait long because of the processor time that it has used. It keeps its
// place during short waits.
func TestLargeBodyWaitsForProcessorTime(t *testing.T) {
	for _, owes := range []time.Duration{shareWait / 2, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := onePlace(t, nil)
			s.codings.gzip.New = func() any { return &slowInflater{takes: time.Millisecond} }
			by := s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now())
			time.AfterFunc(2*time.Millisecond, func() { // when it has begun
				s.sharing.mu.Lock()
				defer s.sharing.mu.Unlock()
				s.sharing.recent[1] = sender{clientKey{name: "other"}, time.Now().Add(time.Hour)}
				by.paid = time.Now().Add(owes + paceBurst)
			})
			body := largeFrames(2 * pacePiece)
			if owes > shareWait {
				stuck(t, s, "gzip", body, func() {}, http.StatusOK)
				return
			}
			began := time.Now()
			time.AfterFunc(owes/2, func() {
				if n := len(s.sharing.pools[forLarge].slots); n != 1 {
					t.Errorf("it leaves its place during a wait of %s", owes)
				}
			})
			if w := postFrom(s, "10.0.0.1:1", "gzip", body); w.Code != http.StatusOK || time.Since(began) < owes {
				t.Errorf("after %s it is answered %d %s", time.Since(began), w.Code, w.Body)
			}
		})
	}
}

// A body that has left its place waits for it like one that comes, and is refused if it gets none.
func TestNoPlaceAgain(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	config := fake.Config
	body := registered(t, id, frames(manySeeds(20_000)))
	for _, after := range []time.Duration{shareWait / 2, 2 * shareWait} {
		synctest.Test(t, func(t *testing.T) {
			config.Transport = fake
			s := onePlace(t, withRegistry(t, config))
			other := s.sharing.join(clientKey{name: "other"}, time.Now())
			fake.AnswerBy(func(w http.ResponseWriter, r *http.Request) {
				if other.try(forLarge) != entered {
					t.Error("the place is taken")
				}
				time.AfterFunc(after, func() { other.exit(forLarge) })
				fake.Handler().ServeHTTP(w, r)
			})
			began := time.Now()
			w := postFrom(s, "10.0.0.1:1", "", body)
			took := time.Since(began)
			if after < shareWait {
				if w.Code != http.StatusOK || took != after {
					t.Errorf("it is answered %d after %s: %s", w.Code, took, w.Body)
				}
			} else if p := decodeProblem(t, w); w.Code != http.StatusTooManyRequests || p.Type != "urn:oona:problem:overloaded" || took != shareWait {
				t.Errorf("it is answered %d after %s: %s", w.Code, took, w.Body)
			}
			if by := s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now()); by.turns != 0 || s.frames.inUse() != 0 {
				t.Errorf("%d turns are taken, %d bytes are in use", by.turns, s.frames.inUse())
			}
			time.Sleep(after)
		})
	}
}

// Many large bodies of a few clients, whose places, turns and slots are short, are all answered, and nothing stays taken.
func TestPlacesAreGivenBack(t *testing.T) {
	fake := registrytest.Start(t, "")
	config := fake.Config
	ids := make([]avro.SchemaID, 20)
	bodies := make([][]byte, len(ids))
	for i := range ids {
		ids[i] = fake.Register(fmt.Sprint("value-", i), frameSchema(t))
		bodies[i] = registered(t, ids[i], frames(manySeeds(10_000)))
	}
	synctest.Test(t, func(t *testing.T) {
		config.Transport = fake
		fake.AnswerBy(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			fake.Handler().ServeHTTP(w, r)
		})
		s := onePlace(t, withRegistry(t, config))
		s.codings.gzip.New = func() any { return &slowInflater{takes: 10 * time.Millisecond} }
		codes := make(map[int]int)
		var mu sync.Mutex
		var served sync.WaitGroup
		for i, body := range bodies {
			served.Go(func() {
				w := postFrom(s, fmt.Sprintf("10.0.0.%d:1", i%5), "gzip", body)
				mu.Lock()
				defer mu.Unlock()
				codes[w.Code]++
			})
		}
		served.Wait()
		t.Log(codes)
		if codes[http.StatusOK] == 0 || codes[http.StatusOK]+codes[http.StatusTooManyRequests] != len(bodies) {
			t.Errorf("the answers are %v", codes)
		}
		for k := range kinds {
			if n := len(s.sharing.pools[k].slots); n != 0 {
				t.Errorf("%d slots of kind %d are taken", n, k)
			}
		}
		if len(s.sharing.pools[forLarge].queue) != 0 || s.frames.inUse() != 0 {
			t.Errorf("%d clients wait, %d bytes are in use", len(s.sharing.pools[forLarge].queue), s.frames.inUse())
		}
	})
}

// A body that waits for a slot keeps no place from the one that has the slot.
func TestLargeBodyWaitsForASlot(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	config := fake.Config
	body := registered(t, id, frames(manySeeds(20_000)))
	synctest.Test(t, func(t *testing.T) {
		config.Transport = fake
		fake.AnswerBy(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(shareWait / 2)
			fake.Handler().ServeHTTP(w, r)
		})
		s := onePlace(t, withRegistry(t, config))
		for i := range cap(s.slots) - 1 {
			s.sharing.join(clientKey{name: fmt.Sprint(i)}, time.Now()).try(forFrames)
		}
		began := time.Now()
		var served sync.WaitGroup
		for i := range 2 { // only the first one waits for the registry, and the other one for its slot
			served.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				w := postFrom(s, fmt.Sprintf("10.0.0.%d:1", i), "", body)
				if took := time.Since(began); w.Code != http.StatusOK || took != shareWait/2 {
					t.Errorf("request %d is answered %d after %s: %s", i, w.Code, took, w.Body)
				}
			})
		}
		served.Wait()
	})
}
