package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// talk sends the whole request before it reads the answer, as many clients do.
func talk(t *testing.T, server *running, header string, body int) (*http.Response, error) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(server.url, "http://"), "/v1/frames"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, header); err != nil {
		return nil, err
	}
	if strings.Contains(header, "chunked") {
		chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
		for range body >> 20 {
			if _, err := conn.Write(chunk); err != nil {
				return nil, err
			}
		}
		_, err = io.WriteString(conn, "0\r\n\r\n")
	} else {
		_, err = conn.Write(bytes.Repeat([]byte{' '}, body))
	}
	if err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer, err
}

// Every client of a refused request gets the answer, even if it sends everything before
// it reads.
func TestRefusalsReachTheSender(t *testing.T) {
	const of = " HTTP/1.1\r\nHost: x\r\n"
	post := "POST /v1/frames" + of
	plain, store := func(c *Config) {}, newStore(t)
	for name, c := range map[string]struct {
		header string
		body   int
		change func(*Config)
		status int
	}{
		"413 declared":       {post + "Content-Type: application/json\r\nContent-Length: 9437184\r\n\r\n", 9 << 20, plain, 413},
		"413 found out":      {post + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", 20 << 20, plain, 413},
		"415":                {post + "Content-Type: text/plain\r\nContent-Length: 4194304\r\n\r\n", 4 << 20, plain, 415},
		"415 coding":         {post + "Content-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 4194304\r\n\r\n", 4 << 20, plain, 415},
		"400 clock":          {post + "Content-Type: application/json\r\nOona-Sent-At: 1000\r\nContent-Length: 4194304\r\n\r\n", 4 << 20, plain, 400},
		"404":                {"POST /v1/frame" + of + "Content-Length: 4194304\r\n\r\n", 4 << 20, plain, 404},
		"404 two slashes":    {"POST //v1/frames" + of + "Content-Length: 4194304\r\n\r\n", 4 << 20, plain, 404},
		"405":                {"PUT /v1/frames" + of + "Content-Length: 4194304\r\n\r\n", 4 << 20, plain, 405},
		"429 no room":        {post + "Content-Type: application/json\r\nContent-Length: 4194304\r\n\r\n", 4 << 20, func(c *Config) { c.MaxInFlight, c.MaxTensorRequests, c.MaxBodyBytes = 1, 1, 4<<20 }, 429},
		"501":                {"PUT /v1/tensors" + of + "Content-Length: 20971520\r\n\r\n", 20 << 20, plain, 501},
		"expecting anything": {"PUT /v1/tensors" + of + "Expect: 100-continue\r\nContent-Length: 4194304\r\n\r\n", 4 << 20, plain, 501},
		"413 tensor":         {"PUT /v1/tensors" + of + "Content-Length: 20971520\r\n\r\n", 20 << 20, func(c *Config) { c.Tensors = store }, 413},
		"413 chunked tensor": {"PUT /v1/tensors" + of + "Transfer-Encoding: chunked\r\n\r\n", 20 << 20, func(c *Config) { c.Tensors = store }, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, newBus(t), c.change)
			if name == "429 no room" {
				s.frames.force(s.cfg.MaxMemoryBytes) // other requests have it
			}
			server := startStage(t, s)
			for range 3 {
				answer, err := talk(t, server, c.header, c.body) //nolint:bodyclose // talk has read and closed it
				if err != nil || answer.StatusCode != c.status || !answer.Close {
					t.Fatalf("the client finds %v, error %v, want status %d and the end of the connection", answer, err, c.status)
				}
			}
			for _, by := range []string{cutConnections, cutBytes, cutTime, cutStop} {
				if n := testutil.ToFloat64(s.metrics.refusalsCut.WithLabelValues(by)); n != 0 {
					t.Errorf("%g connections were cut off by %s", n, by)
				}
			}
			server.cancel()
			if err := <-server.ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that expects 100 (Continue) is refused before it sends the body.
func TestRefusedBeforeTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener, end := serve(t, newStage(t, newBus(t), nil))
		conn := listener.dial()
		if _, err := io.WriteString(conn, putHeader+"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusNotImplemented || time.Since(began) != 0 {
			t.Errorf("after %s the answer is %v, error %v", time.Since(began), answer, err)
		}
		answer.Body.Close()
		conn.Close()
		end()
	})
}

// The connection stays open if a request is refused after its body was read.
func TestRefusedConnectionsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener, end := serve(t, newStage(t, newBus(t), nil))
		conn := listener.dial()
		answers := bufio.NewReader(conn)
		for _, request := range []string{postHeader + "Content-Length: 7\r\n\r\nrubbish", "GET /v1/frames HTTP/1.1\r\nHost: x\r\n\r\n", postHeader + "Content-Length: 0\r\n\r\n"} {
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(answers, nil)
			if err != nil || answer.Close || answer.StatusCode/100 != 4 {
				t.Fatalf("%q is answered %v, error %v", request, answer, err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		conn.Close()
		end()
	})
}

// notFound is the path of a request that is answered 404.
const notFound = "/nowhere"

// refusedClients connects clients whose requests of a path are refused with status, and
// which then send chunks without end.
func refusedClients(t *testing.T, listener *pipes, path string, status, clients int, chunk string, pause time.Duration) (sending *sync.WaitGroup, ended *[]time.Duration) {
	t.Helper()
	var mu sync.Mutex
	sending, ended = new(sync.WaitGroup), new([]time.Duration)
	began := time.Now()
	length := "Content-Length: 1000000000"
	if strings.HasSuffix(chunk, "\r\n") {
		length = "Transfer-Encoding: chunked"
	}
	for range clients {
		conn := listener.dial()
		if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+length+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != status {
			t.Fatalf("answer is %v, error %v", answer, err)
		}
		answer.Body.Close()
		sending.Go(func() {
			for {
				if _, err := io.WriteString(conn, chunk); err != nil {
					break
				}
				time.Sleep(pause)
			}
			mu.Lock()
			defer mu.Unlock()
			*ended = append(*ended, time.Since(began))
		})
	}
	return sending, ended
}

func (s *Stage) cutBy(t *testing.T, want map[string]float64) {
	t.Helper()
	for _, by := range []string{cutConnections, cutBytes, cutTime, cutStop} {
		if n := testutil.ToFloat64(s.metrics.refusalsCut.WithLabelValues(by)); n != want[by] {
			t.Errorf("%g connections were cut off by %s, want %g", n, by, want[by])
		}
	}
}

// connectionsServed counts the goroutines that serve a connection, of all servers
// in the process.
func connectionsServed() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "net/http.(*conn).serve(")
}

// Refused clients that keep sending slowly are disconnected after ten seconds, and those
// beyond 64 after half a second. Other clients are not affected.
func TestSlowRefusedClients(t *testing.T) {
	for name, c := range map[string]struct {
		chunk string
		last  time.Duration
	}{
		"nothing much":   {"x", firstByteTimeout},
		"the least rate": {strings.Repeat("x", 2*minRate), discardTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const clients = 200
				s := newStage(t, newBus(t), func(c *Config) { c.Tensors, c.ClientShare = newStore(t), 1 })
				listener, end := serve(t, s)
				synctest.Wait()
				sending, ended := refusedClients(t, listener, notFound, http.StatusNotFound, clients, c.chunk, time.Second)
				synctest.Wait()
				if n := len(s.discards); n != discardConnections {
					t.Errorf("%d bodies are being thrown away, want %d", n, discardConnections)
				}
				if n := connectionsServed(); n < discardConnections {
					t.Errorf("%d connections are served, want the %d at least", n, discardConnections)
				}
				if len(s.slots)+len(s.storing) != 0 || s.frames.inUse()+s.spools.taken.Load() != 0 {
					t.Error("refused requests hold a slot, or room for bodies")
				}
				if w := post(s, mediaAvro, frames(withTensors(inline(larger)))); w.Code != http.StatusOK {
					t.Errorf("during that time a frame is answered %d %s", w.Code, w.Body)
				}
				if w := put(s, aboveIt); w.Code != http.StatusCreated {
					t.Errorf("during that time a tensor is answered %d %s", w.Code, w.Body)
				}
				// A client that is refused during that time, and sends everything, gets the answer.
				conn := listener.dial()
				if _, err := io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || answer.StatusCode != http.StatusNotFound {
					t.Errorf("answer is %v, error %v", answer, err)
				}
				answer.Body.Close()
				if _, err := conn.Write(make([]byte, 100_000)); err != nil {
					t.Errorf("a body of 100 kB was not taken: %v", err)
				}
				conn.Close()
				sending.Wait()
				hasty := 0
				for _, after := range *ended {
					if after <= hastyTime+time.Second { // they notice it when they send again
						hasty++
					} else if after > c.last+2*time.Second {
						t.Errorf("a client was gone only after %s", after)
					}
				}
				if hasty != clients-discardConnections {
					t.Errorf("%d clients were gone soon, want %d", hasty, clients-discardConnections)
				}
				s.cutBy(t, map[string]float64{cutConnections: clients - discardConnections, cutTime: discardConnections})
				time.Sleep(time.Second) // net/http waits for half a second before it closes
				synctest.Wait()
				if n := connectionsServed(); n > 0 {
					t.Errorf("%d connections are still served", n)
				}
				end()
			})
		})
	}
}

// The number of discarded bytes is limited, in chunks, too.
func TestEndlessRefusedClients(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for name, chunk := range map[string]string{"length": large, "chunks": fmt.Sprintf("%x\r\n%s\r\n", len(large), large)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, newBus(t), nil)
				listener, end := serve(t, s)
				sending, ended := refusedClients(t, listener, notFound, http.StatusNotFound, 1, chunk, 0)
				sending.Wait()
				if (*ended)[0] > time.Second {
					t.Errorf("the client was gone after %s", (*ended)[0])
				}
				s.cutBy(t, map[string]float64{cutBytes: 1})
				end()
			})
		})
	}
}

// indebted makes the clients of the listener wait for processor time, again and again.
func indebted(t *testing.T, s *Stage) (end func()) {
	t.Helper()
	done := make(chan struct{})
	var charging sync.WaitGroup
	by := s.sharing.join(clientKey{}, time.Now()) // a pipe has no address
	charging.Go(func() {
		for {
			s.sharing.join(clientKey{name: "other"}, time.Now()).leave()
			if by.owed() < 2*time.Second {
				by.charge(time.Duration(s.sharing.most * float64(time.Second)))
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		charging.Wait()
		by.leave()
	}
}

// Waits for processor time do not count in favour of a client whose body is discarded: it is
// disconnected in time.
func TestRefusedClientsThatOweTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), nil)
		listener, end := serve(t, s)
		synctest.Wait()
		settle := indebted(t, s)
		time.Sleep(time.Second)
		sending, ended := refusedClients(t, listener, framesPath, http.StatusTooManyRequests, 1, strings.Repeat("x", pacePiece), 0)
		sending.Wait()
		if last := (*ended)[0]; last > discardTime+2*shareWait+time.Second { // after it was answered, which takes a second
			t.Errorf("the client was gone after %s", last)
		}
		s.cutBy(t, map[string]float64{cutTime: 1})
		settle()
		end()
	})
}

// A stage that stops does not wait for clients that were answered.
func TestRefusedClientsDoNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.PublishTimeout = time.Millisecond })
		s.grace = time.Second
		listener, end := serve(t, s)
		sending, _ := refusedClients(t, listener, notFound, http.StatusNotFound, 1, strings.Repeat("x", 2*minRate), time.Second)
		synctest.Wait()
		end() // fails the test where requests in hand are cut off
		sending.Wait()
		s.cutBy(t, map[string]float64{cutStop: 1})
	})
}

// It also does not wait for those of them that wait for processor time.
func TestIndebtedRefusedClientsDoNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.PublishTimeout = time.Millisecond })
		s.grace = time.Second
		listener, end := serve(t, s)
		synctest.Wait()
		settle := indebted(t, s)
		time.Sleep(time.Second)
		sending, _ := refusedClients(t, listener, framesPath, http.StatusTooManyRequests, 1, strings.Repeat("x", pacePiece), 0)
		synctest.Wait()
		settle()
		end()
		sending.Wait()
		s.cutBy(t, map[string]float64{cutStop: 1})
	})
}

// A client that waits for "100 Continue" sends nothing after a refusal. Its connection is not kept
// for as long as that of a client that sends.
func TestRefusedClientsThatWaitToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), nil)
		listener, end := serve(t, s)
		conn := listener.dial()
		began := time.Now()
		go func() {
			_, _ = io.WriteString(conn, strings.Replace(postHeader, "avro", "text", 1)+"Expect: 100-continue\r\nContent-Length: 4194304\r\n\r\n") // the answer tells
		}()
		answers := bufio.NewReader(conn)
		answer, err := http.ReadResponse(answers, nil)
		if err != nil || answer.StatusCode != http.StatusUnsupportedMediaType {
			t.Fatalf("answer is %v, %v", answer, err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if _, err := answers.ReadByte(); err != io.EOF {
			t.Errorf("the connection has more, or ends with %v", err)
		}
		if took := time.Since(began); took > 2*hastyTime {
			t.Errorf("the connection was kept for %s", took)
		}
		if testutil.ToFloat64(s.metrics.refusalsCut.WithLabelValues(cutTime)) != 0 {
			t.Errorf("it counts as cut off")
		}
		end()
	})
}
