package ingest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func olderThan(t *testing.T, s *Stage, of *share) *lease {
	return of.lease(t.Context(), s.sharing.join(clientKey{name: "older"}, time.Now()))
}

// answerOf reads the next answer on a connection, and returns its status.
func answerOf(t *testing.T, in *bufio.Reader) int {
	t.Helper()
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

// A tensor that is being stored was received, so it is not refused for an older request, and its
// connection serves the next request as usual.
func TestStoredTensorIsNotRefused(t *testing.T) {
	store := newStore(t)
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.Tensors, c.MaxMemoryBytes = store, c.leastMemory() })
		listener, end := serve(t, s)
		older := olderThan(t, s, s.tensors)
		release := make(chan struct{})
		store.fault = func(context.Context) error { <-release; return nil }
		conn := listener.dial()
		in := bufio.NewReader(conn)
		go func() {
			fmt.Fprintf(conn, "%sContent-Length: 200000\r\n\r\n%s", putHeader, strings.Repeat("x", 200_000))
		}()
		synctest.Wait()
		if n := len(s.storing); n != 1 {
			t.Fatalf("%d are being stored", n)
		}
		if n := len(s.tensors.yielding); n != 0 {
			t.Errorf("%d tensors that are being stored may be refused", n)
		}
		if older.Grow(int(s.tensors.most()) - leaseStep) {
			t.Error("an older request gets its memory")
		}
		close(release)
		if status := answerOf(t, in); status != http.StatusCreated {
			t.Errorf("the tensor is answered %d", status)
		}
		older.end()
		for range cap(s.slots) {
			s.slots <- struct{}{}
		}
		by := s.sharing.join(clientKey{name: "slots"}, time.Now())
		by.held[forFrames] = cap(s.slots)
		time.AfterFunc(shareWait/2, func() {
			for range cap(s.slots) {
				by.exit(forFrames)
			}
		})
		body := frames(nil)
		fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", postHeader, len(body), body)
		if status := answerOf(t, in); status != http.StatusOK {
			t.Errorf("the next request on the connection is answered %d", status)
		}
		conn.Close()
		end()
	})
}

// A body that is refused while it is received is read to its end, in chunks, too.
func TestRefusedBodyIsReadToItsEnd(t *testing.T) {
	for _, coding := range []string{"length", "chunked"} {
		t.Run(coding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, newBus(t), func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
				listener, end := serve(t, s)
				older := olderThan(t, s, s.frames)
				conn := listener.dial()
				const pieces = 20
				var sending sync.WaitGroup
				sent := 0
				sending.Go(func() { // it reads the answer only after it has sent everything
					if coding == "length" {
						fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", postHeader, pieces*100_000)
					} else {
						fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n", postHeader)
					}
					for range pieces {
						piece := strings.Repeat("x", 100_000)
						if coding == "chunked" {
							piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
						}
						if _, err := io.WriteString(conn, piece); err != nil {
							return
						}
						sent++
						time.Sleep(10 * time.Millisecond)
					}
					if coding == "chunked" {
						_, _ = io.WriteString(conn, "0\r\n\r\n") // as above
					}
				})
				answered := make(chan string, 1)
				go func() {
					answer, err := bufio.NewReader(conn).ReadString('\n')
					answered <- fmt.Sprint(answer, err)
				}()
				time.Sleep(55 * time.Millisecond)
				if !older.Grow(int(s.cfg.MaxMemoryBytes) - leaseStep) {
					t.Error("the older one gets no memory")
				}
				t.Log(<-answered)
				sending.Wait()
				if sent != pieces {
					t.Errorf("%d of %d pieces were sent", sent, pieces)
				}
				for _, by := range []string{cutConnections, cutBytes, cutTime, cutStop} {
					if n := testutil.ToFloat64(s.metrics.refusalsCut.WithLabelValues(by)); n != 0 {
						t.Errorf("%v connections are cut by %s", n, by)
					}
				}
				conn.Close()
				older.end()
				end()
			})
		})
	}
}

// refuseWaiting posts a body, lets stick make it wait while it has memory, and expects that an older
// request gets this memory at once. stick can also close the connection of the client.
func refuseWaiting(t *testing.T, change func(*Config), stick func(s *Stage, hangUp func()) (free func()), coding string, body io.Reader) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, &acknowledging{}, func(c *Config) {
			c.MaxMemoryBytes = c.leastMemory()
			if change != nil {
				change(c)
			}
		})
		older := olderThan(t, s, s.frames)
		ctx, hangUp := context.WithCancel(t.Context())
		defer hangUp()
		free := stick(s, hangUp)
		var served sync.WaitGroup
		served.Go(func() {
			began := time.Now()
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, framesPath, body)
			r.RemoteAddr = "10.0.0.1:1"
			r.Header.Set("Content-Type", mediaAvro)
			r.Header.Set("Content-Encoding", coding)
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			t.Logf("the younger one is answered %d after %s: %s", w.Code, time.Since(began), w.Body)
		})
		time.Sleep(100 * time.Millisecond)
		t.Log("used", s.frames.inUse(), "yielding", len(s.frames.yielding))
		if s.frames.inUse() < smallLease {
			t.Fatal("it is not stuck")
		}
		began := time.Now()
		if got := older.Grow(int(s.cfg.MaxMemoryBytes) - leaseStep); !got || time.Since(began) > 20*time.Millisecond {
			t.Errorf("the older one gets memory: %t, after %s", got, time.Since(began))
		}
		older.end()
		free()
		served.Wait()
	})
}

// calling is an empty reader that calls itself.
type calling func()

func (f calling) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// A body is refused for an older request wherever it waits until it is decoded.
func TestRefusedWhileItWaits(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	of := func(s *Stage) *client {
		return s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now())
	}
	t.Run("slot", func(t *testing.T) {
		refuseWaiting(t, nil, func(s *Stage, _ func()) func() {
			for range cap(s.slots) {
				s.slots <- struct{}{}
			}
			return func() {
				for range cap(s.slots) {
					<-s.slots
				}
			}
		}, "", strings.NewReader(large))
	})
	t.Run("turn", func(t *testing.T) {
		refuseWaiting(t, nil, func(s *Stage, _ func()) func() {
			by := of(s)
			for range s.sharing.turns {
				by.turn(t.Context())
			}
			return by.endTurn
		}, "", strings.NewReader(large))
	})
	owes := func(s *Stage, by *client) {
		s.sharing.mu.Lock()
		defer s.sharing.mu.Unlock()
		s.sharing.recent[1] = sender{clientKey{name: "other"}, time.Now().Add(time.Hour)}
		by.paid = time.Now().Add(3 * time.Second)
	}
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("processor time, client gone: ", gone), func(t *testing.T) {
			small := gzipped([]byte(strings.Repeat(" ", 15<<20)))
			refuseWaiting(t, nil, func(s *Stage, hangUp func()) func() {
				by := of(s)
				s.codings.gzip.New = func() any { return &sleepy{takes: time.Millisecond} }
				time.AfterFunc(4*time.Millisecond, func() {
					owes(s, by)
					if gone {
						hangUp()
					}
				})
				return func() {}
			}, "gzip", bytes.NewReader(small))
		})
	}
	t.Run("processor time, while it is received", func(t *testing.T) {
		var began func()
		body := io.MultiReader(strings.NewReader(large), calling(func() { began() }), strings.NewReader(large))
		refuseWaiting(t, nil, func(s *Stage, _ func()) func() {
			by := of(s)
			began = func() { owes(s, by) }
			return func() {}
		}, "", body)
	})
}

// sleepy is a decompressor that takes long for each read.
type sleepy struct {
	gzip.Reader
	takes time.Duration
}

func (i *sleepy) Read(p []byte) (int, error) {
	time.Sleep(i.takes)
	return i.Reader.Read(p)
}

// The oldest gets its memory while younger ones arrive all the time: they do not take what others give
// back for it.
func TestOldestIsNotOvertaken(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) { overtake(t, seed) })
	}
}

func overtake(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	memory := newBudget(1000 * leaseStep).share(0)
	sharing := newSharing(.5, nil, nil, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	every := time.Duration(1+r.IntN(10)) * time.Millisecond
	notice := time.Duration(1+r.IntN(30)) * time.Millisecond
	size := 50 + r.IntN(200)
	var all sync.WaitGroup
	oldest := memory.lease(ctx, sharing.join(clientKey{name: "oldest"}, time.Now()))
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			time.Sleep(every)
			seed := r.Uint64()
			all.Go(func() {
				r := rand.New(rand.NewPCG(seed, 4))
				by := sharing.join(clientKey{name: fmt.Sprint(i)}, time.Now())
				defer by.leave()
				l := memory.lease(ctx, by)
				defer l.end()
				stop := make(chan struct{})
				l.yields(func() { close(stop) })
				for range size {
					if !l.Grow(leaseStep) {
						time.Sleep(time.Duration(r.Int64N(int64(notice))))
						return
					}
					select {
					case <-stop:
						time.Sleep(time.Duration(r.Int64N(int64(notice))))
						return
					case <-time.After(time.Millisecond):
					}
				}
				l.prevails()
				time.Sleep(20 * time.Millisecond)
			})
		}
	})
	time.Sleep(3 * time.Second)
	oldest.yields(func() { t.Error("the oldest is refused") })
	for _, n := range []int{100, 200, 400} {
		began := time.Now()
		if !oldest.Grow(n * leaseStep) {
			t.Errorf("seed %d, every %s, notice %s, size %d: the oldest gets no %d steps after %s", seed, every, notice, size, n, oldest.waited)
			break
		} else if took := time.Since(began); took > 50*time.Millisecond {
			t.Logf("seed %d, every %s, notice %s, size %d: the oldest gets %d steps after %s", seed, every, notice, size, n, took)
		}
		oldest.Shrink(n / 2 * leaseStep)
	}
	oldest.end()
	cancel()
	all.Wait()
}
