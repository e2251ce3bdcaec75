package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// While other clients send, a client waits so that it uses no more processor time than
// its share. Without others it does not wait.
func TestProcessorTimeIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharing(.5, nil, nil, nil, nil)
		costs := func(by *client, requests int) time.Duration {
			began := time.Now()
			for range requests {
				if _, ok := by.pay(t.Context(), nil, 10*time.Millisecond, time.Minute); !ok {
					t.Error("the wait is refused")
				}
			}
			return time.Since(began)
		}
		greedy := s.join(clientKey{name: "greedy"}, time.Now())
		for range 3 { // its own requests are not those of another
			s.join(clientKey{name: "greedy"}, time.Now()).leave()
		}
		if took := costs(greedy, 1000); took != 0 {
			t.Errorf("a client that is alone waits %s", took)
		}
		s.join(clientKey{name: "other"}, time.Now())
		want := time.Duration(20 / (.5 * float64(runtime.GOMAXPROCS(0))) * 10 * float64(time.Millisecond))
		if took := costs(greedy, 20); took < want-paceBurst-time.Millisecond || took > want {
			t.Errorf("200 ms of processor time take %s while another client sends, want %s without a burst", took, want)
		}
		time.Sleep(othersFor)
		if took := costs(greedy, 1000); took != 0 {
			t.Errorf("a second after the other client it still waits %s", took)
		}
		s.join(clientKey{address: networkOf("10.0.0.1:1"), stranger: true}, time.Now())
		if took := costs(greedy, 1000); took != 0 {
			t.Errorf("it waits %s because of a client that is not known", took)
		}
	})
}

// A client that has used much processor time does not get rid of that when it has no
// request in progress, and is forgotten when it is paid for.
func TestDebtorsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharing(.5, nil, nil, nil, nil)
		s.join(clientKey{name: "other"}, time.Now()).leave()
		greedy := s.join(clientKey{name: "greedy"}, time.Now())
		greedy.charge(time.Second)
		greedy.leave()
		for i := range 1000 { // they owe too little to be remembered
			light := s.join(clientKey{name: fmt.Sprint("light ", i)}, time.Now())
			light.charge(requestCost)
			light.leave()
		}
		if len(s.clients) != 1 || len(s.debtors) != 1 {
			t.Errorf("%d clients are known, %d of them debtors, want the greedy one", len(s.clients), len(s.debtors))
		}
		again := s.join(clientKey{name: "greedy"}, time.Now())
		if again.charge(0) <= 0 {
			t.Error("a client that comes again does not wait")
		}
		again.leave()
		s.join(clientKey{name: "greedy"}, time.Now()).leave()
		time.Sleep(time.Minute)
		s.join(clientKey{name: "other"}, time.Now()).leave()
		if len(s.clients) != 0 || len(s.debtors) != 0 {
			t.Errorf("%d clients are known, %d debtors, want none", len(s.clients), len(s.debtors))
		}
		one, two := s.join(clientKey{name: "one"}, time.Now()), s.join(clientKey{name: "two"}, time.Now())
		if one == two {
			t.Error("two clients that come are the same one, which was forgotten twice")
		}
	})
}

// A client whose request would wait for more than a second gets 429, after a second. The answer
// says when it can send again.
func TestGreedyClientsAreRefusedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, &acknowledging{}, nil)
		postFrom(s, "10.0.0.2:1", "", frames(nil))
		greedy := s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now())
		defer greedy.leave()
		greedy.charge(time.Duration(20 * s.sharing.processors * float64(time.Second)))
		began := time.Now()
		w := postFrom(s, "10.0.0.1:1", "", frames(nil))
		if p := decodeProblem(t, w); w.Code != http.StatusTooManyRequests || p.Type != "urn:oona:problem:share" || time.Since(began) != shareWait || w.Header().Get("Retry-After") != "19" {
			t.Errorf("after %s the answer is %d, Retry-After %q: %s", time.Since(began), w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		if w := postFrom(s, "10.0.0.2:1", "", frames(nil)); w.Code != http.StatusOK {
			t.Errorf("another client gets %d %s", w.Code, w.Body)
		}
	})
}

// A client that sends the greater part of a body quickly and then nothing, or little, is
// disconnected: when it pauses, and as soon as memory is scarce when it is slow.
func TestBodiesThatBecomeSlow(t *testing.T) {
	const large = 4 << 20
	for name, c := range map[string]struct {
		every  time.Duration // between two bytes at the end
		scarce bool
		after  time.Duration
	}{
		"a pause":               {time.Hour, false, firstByteTimeout},
		"slow":                  {time.Second, false, 30 * time.Second},
		"slow, and memory full": {time.Second, true, firstByteTimeout + large/scarceRate*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, newBus(t), nil)
				listener, end := serve(t, s)
				if c.scarce {
					s.frames.force(s.frames.most() / 2)
				}
				conn := listener.dial()
				began := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", postHeader, large+100, strings.Repeat("x", large)) // the answer tells
					for {
						if _, err := io.WriteString(conn, "x"); err != nil {
							return
						}
						time.Sleep(c.every)
					}
				})
				answer, err := bufio.NewReader(conn).ReadString('\n')
				if strings.TrimSpace(answer) != "HTTP/1.1 408 Request Timeout" {
					t.Errorf("answer is %q, %v", answer, err)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("it came after %s, want %s", took, c.after)
				}
				conn.Close()
				time.Sleep(time.Hour)
				sending.Wait()
				end()
			})
		})
	}
}

// The time for which ingest makes a client wait is no fault of the client's.
func TestWaitsAreNotSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), nil)
		s.sharing.most, s.sharing.processors = .0008, .0008
		listener, end := serve(t, s)
		began, ended := time.Now(), make(chan struct{})
		var others, sending sync.WaitGroup
		others.Go(func() {
			for {
				s.sharing.join(clientKey{name: "other"}, time.Now()).leave()
				select {
				case <-time.After(othersFor / 2):
				case <-ended:
					return
				}
			}
		})
		synctest.Wait()
		conn := listener.dial()
		sending.Go(func() {
			_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", postHeader, 4<<20, strings.Repeat("x", 4<<20)) // the answer tells
		})
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if took := time.Since(began); strings.TrimSpace(answer) != "HTTP/1.1 400 Bad Request" || took < DefaultConfig().ReadTimeout {
			t.Errorf("answer is %q, %v, after %s", answer, err, took)
		}
		close(ended)
		conn.Close()
		others.Wait()
		sending.Wait()
		end()
	})
}
