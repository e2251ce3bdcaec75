package ingest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func startStage(t *testing.T, s *Stage) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{url: "http://" + listener.Addr().String() + "/v1/frames", cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx, listener) }()
	return r
}

// A client that stalls while it sends the body is disconnected at the read timeout.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.ReadTimeout, c.MaxInFlight = 2*time.Second, 1 })
		listener, end := serve(t, s)
		conn := listener.dial()
		began := time.Now()
		if _, err := io.WriteString(conn, postHeader+"Content-Length: 100\r\n\r\n\xc3"); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if took := time.Since(began); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 408 ") || took != s.cfg.ReadTimeout {
			t.Errorf("answer after %s is %q, %v", took, answer, err)
		}
		conn.Close()
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("the next request is answered %d", w.Code)
		}
		end()
	})
}

func TestRunWithAClosedListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := newStage(t, newBus(t), nil).Run(t.Context(), listener); err == nil {
		t.Error("no error from a listener that is closed")
	}
}

// stall sends a request's header and one byte of its body.
func stall(t *testing.T, server *running) net.Conn {
	t.Helper()
	address := strings.TrimSuffix(strings.TrimPrefix(server.url, "http://"), "/v1/frames")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("POST /v1/frames HTTP/1.1\r\nHost: x\r\nContent-Type: application/avro\r\nContent-Length: 100\r\n\r\n\xc3")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A client that is still sending does not delay the end of the stage.
func TestDrainCutsOffWhoStalls(t *testing.T) {
	s := newStage(t, newBus(t), func(c *Config) { c.PublishTimeout = time.Millisecond })
	s.grace = time.Millisecond
	server := startStage(t, s)
	conn := stall(t, server)
	defer conn.Close()
	for s.frames.inUse() == 0 { // until the request is in hand
		time.Sleep(time.Millisecond)
	}
	server.cancel()
	if err := <-server.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if got := s.Counts(); got.Frames != 0 || got.Unconfirmed != 0 {
		t.Errorf("counts are %+v", got)
	}
}
