package ingest

import (
	"bufio"
	"context"
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

	"github.com/ThreeDotsLabs/watermill/message"
)

// pipes is a listener whose connections are pipes in the process, so that their
// deadlines use the clock of synctest.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accepted <- server
	return client
}

// trickle sends one byte of text per second until the other side closes the connection.
func trickle(conn net.Conn, text string) {
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// serve runs a stage whose connections are pipes. The returned function stops it.
func serve(t *testing.T, s *Stage) (*pipes, func()) {
	listener, cancel, ended := serveUntil(t, s)
	return listener, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// serveUntil runs a stage whose connections are pipes until cancel is called. The result
// of Run is sent to ended.
func serveUntil(t *testing.T, s *Stage) (listener *pipes, cancel func(), ended <-chan error) {
	listener = &pipes{make(chan net.Conn), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Run(ctx, listener) }()
	return listener, cancel, result
}

const (
	putHeader  = "PUT /v1/tensors HTTP/1.1\r\nHost: x\r\n"
	postHeader = "POST /v1/frames HTTP/1.1\r\nHost: x\r\nContent-Type: application/avro\r\n"
)

// A client that sends nothing is disconnected after five seconds, and one that sends a
// byte per second soon after that, whatever the coding. Neither holds a slot.
func TestTricklingClients(t *testing.T) {
	body, store := string(frames(nil)), newStore(t)
	const slow = "HTTP/1.1 408 Request Timeout"
	for name, c := range map[string]struct {
		atOnce, slowly string
		answer         string
		after          time.Duration
	}{
		"nothing": {postHeader + "Content-Length: 100\r\n\r\n", "", slow, firstByteTimeout},
		"body":    {postHeader + "Content-Length: 100\r\n\r\n", body, slow, firstByteTimeout},
		"chunked": {postHeader + "Transfer-Encoding: chunked\r\n\r\n", "40\r\n" + body, slow, firstByteTimeout},
		"gzip":    {postHeader + "Content-Encoding: gzip\r\nContent-Length: 100\r\n\r\n", string(gzipped([]byte(body))), slow, firstByteTimeout},
		"zstd":    {postHeader + "Content-Encoding: zstd\r\nContent-Length: 100\r\n\r\n", string(zstandarded(t, []byte(body))), slow, firstByteTimeout},
		"tensor":  {putHeader + "Content-Length: 100\r\n\r\n", body, slow, firstByteTimeout},
		// net/http parses the part of the header that it has received.
		"header": {"P", postHeader[1:], "HTTP/1.1 400 Bad Request", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, newBus(t), func(c *Config) { c.MaxInFlight, c.MaxTensorRequests, c.Tensors = 2, 1, store })
				listener, end := serve(t, s)
				conn := listener.dial()
				began := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					_, _ = io.WriteString(conn, c.atOnce) // the answer tells
					trickle(conn, c.slowly)
				})
				sending.Go(func() {
					time.Sleep(c.after - time.Second)
					if len(s.slots)+len(s.storing) != 0 {
						t.Error("a client that sends holds a slot")
					}
				})
				answer, err := bufio.NewReader(conn).ReadString('\n')
				if strings.TrimSpace(answer) != c.answer {
					t.Errorf("answer is %q, %v", answer, err)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("it came after %s, want %s", took, c.after)
				}
				conn.Close()
				sending.Wait()
				if left := s.frames.inUse() + s.tensors.inUse() + s.spools.taken.Load(); left != 0 {
					t.Errorf("%d bytes of room are not given back", left)
				}
				end()
			})
		})
	}
}

// A body with the minimum rate may take the whole timeout, but not more.
func TestSlowLinks(t *testing.T) {
	for _, c := range []struct {
		seconds int
		answer  string
	}{{29, "HTTP/1.1 400 Bad Request"}, {40, "HTTP/1.1 408 Request Timeout"}} {
		synctest.Test(t, func(t *testing.T) {
			listener, end := serve(t, newStage(t, newBus(t), nil))
			conn := listener.dial()
			began := time.Now()
			var sending sync.WaitGroup
			sending.Go(func() {
				_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", postHeader, c.seconds*minRate)
				for range c.seconds {
					if _, err := io.WriteString(conn, strings.Repeat("x", minRate)); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			})
			answer, err := bufio.NewReader(conn).ReadString('\n')
			if strings.TrimSpace(answer) != c.answer {
				t.Errorf("after %s the answer is %q, %v; want %q", time.Since(began), answer, err, c.answer)
			}
			if want := time.Duration(min(c.seconds-1, 30)) * time.Second; time.Since(began) != want {
				t.Errorf("it came after %s, want %s", time.Since(began), want)
			}
			conn.Close()
			sending.Wait()
			end()
		})
	}
}

// While many clients have declared large bodies and send nothing, other clients are
// served, and no memory is used for the declared bodies.
func TestSlowClientsDoNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 200
		s := newStage(t, newBus(t), func(c *Config) { c.Tensors = newStore(t) })
		listener, end := serve(t, s)
		var before, with runtime.MemStats
		synctest.Wait() // for what Run allocates
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []net.Conn
		for range clients {
			for _, header := range []string{postHeader + "Content-Length: 8388608\r\n\r\n", putHeader + "Content-Length: 1000000\r\n\r\nx"} {
				conn := listener.dial()
				conns = append(conns, conn)
				if _, err := io.WriteString(conn, header); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if got := s.spools.taken.Load(); got != clients {
			t.Fatalf("the fault did not come: %d bytes of tensors have arrived, want %d", got, clients)
		}
		runtime.GC()
		runtime.ReadMemStats(&with)
		if took := with.HeapAlloc - before.HeapAlloc; took > 100<<20 {
			t.Errorf("%d slow clients take %d bytes", 2*clients, took)
		}
		if w := post(s, mediaAvro, frames(withTensors(inline(larger)))); w.Code != http.StatusOK {
			t.Errorf("during that time a frame is answered %d %s", w.Code, w.Body)
		}
		if w := put(s, aboveIt); w.Code != http.StatusCreated {
			t.Errorf("during that time a tensor is answered %d %s", w.Code, w.Body)
		}
		for _, conn := range conns {
			conn.Close()
		}
		end()
	})
}

// The total size of tensors that are being received is limited, over all clients.
func TestRoomForTensors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) {
			c.MaxInFlight, c.MaxTensorRequests, c.MaxBodyBytes, c.MaxUploadBytes, c.Tensors = 2, 1, 1000, 2000, newStore(t)
		})
		listener, end := serve(t, s)
		var conns []net.Conn
		for _, header := range []string{putHeader, putHeader} {
			conn := listener.dial()
			conns = append(conns, conn)
			if _, err := io.WriteString(conn, header+"Content-Length: 1000\r\n\r\n"+strings.Repeat("x", 950)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if w := put(s, aboveIt); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("while there is no room a tensor is answered %d %s", w.Code, w.Body)
		}
		for _, conn := range conns {
			conn.Close()
		}
		synctest.Wait()
		if w := put(s, aboveIt[:1000]); w.Code != http.StatusCreated {
			t.Errorf("once there is room a tensor is answered %d %s", w.Code, w.Body)
		}
		end()
	})
}

// A read timeout that expires while a request is being published has no effect: the
// connection serves the next request.
func TestSlowBusKeepsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		onBus.before = func(string, []*message.Message) error { time.Sleep(firstByteTimeout + time.Second); return nil }
		listener, end := serve(t, newStage(t, onBus, nil))
		conn := listener.dial()
		answers := bufio.NewReader(conn)
		for range 2 {
			body := frames(nil)
			if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", postHeader, len(body), body); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(answers, nil)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatalf("answer is %v, error %v", answer, err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		conn.Close()
		end()
	})
}
