package ingest

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes within the process, so that
// their deadlines follow the clock of a test.
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

// trickle sends text, a byte a second, until the other side has had enough.
func trickle(conn net.Conn, text string) {
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// Who sends a byte a second is sent away when the time is up, whatever the
// request's coding, and no slot is held for longer.
func TestTricklingClients(t *testing.T) {
	const header = "POST /v1/frames HTTP/1.1\r\nHost: x\r\nContent-Type: application/avro\r\n"
	body := string(frames(nil))
	for name, c := range map[string]struct {
		atOnce, slowly string
		answer         string
		after          time.Duration
		slots          int // while the client sends
	}{
		"body":    {header + "Content-Length: 100\r\n\r\n", body, "HTTP/1.1 408 Request Timeout", 30 * time.Second, 1},
		"chunked": {header + "Transfer-Encoding: chunked\r\n\r\n", "40\r\n" + body, "HTTP/1.1 408 Request Timeout", 30 * time.Second, 1},
		"gzip":    {header + "Content-Encoding: gzip\r\nContent-Length: 100\r\n\r\n", string(gzipped([]byte(body))), "HTTP/1.1 408 Request Timeout", 30 * time.Second, 1},
		"zstd":    {header + "Content-Encoding: zstd\r\nContent-Length: 100\r\n\r\n", string(zstandarded(t, []byte(body))), "HTTP/1.1 408 Request Timeout", 30 * time.Second, 1},
		// net/http takes what has come of a header for all of it.
		"header": {"P", header[1:], "HTTP/1.1 400 Bad Request", 10 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, &fakeBus{}, func(c *Config) { c.MaxInFlight = 1 })
				listener := &pipes{make(chan net.Conn), make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx, listener) }()
				conn := listener.dial()
				began := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					_, _ = io.WriteString(conn, c.atOnce) // the answer tells
					trickle(conn, c.slowly)
				})
				sending.Go(func() {
					time.Sleep(c.after - time.Second)
					if got := len(s.slots); got != c.slots {
						t.Errorf("%d slots are held while the client sends, want %d", got, c.slots)
					}
				})
				answer, err := bufio.NewReader(conn).ReadString('\n')
				if strings.TrimSpace(answer) != c.answer {
					t.Errorf("answer is %q, %v", answer, err)
				}
				if took := time.Since(began); took != c.after {
					t.Errorf("it came after %s, want %s", took, c.after)
				}
				if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
					t.Errorf("the next request is answered %d %s: the slot is not given back", w.Code, w.Body)
				}
				conn.Close()
				sending.Wait()
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
