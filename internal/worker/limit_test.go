package worker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener for connections within the process. Its zero value is not usable.
type pipes struct{ accepted, closed chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// onAdmin runs an admin server, opens a connection to it, and calls do in a bubble of
// synctest.
func onAdmin(t *testing.T, do func(conn net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		listener := pipes{make(chan net.Conn), make(chan net.Conn)}
		admin := NewAdmin("probe", listener, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		admin.ServeProfiles()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- admin.Run(ctx) }()
		ours, theirs := net.Pipe()
		listener.accepted <- theirs
		do(ours)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = ours.Close()
		time.Sleep(time.Second) // net/http does not wait for its connections
	})
}

func send(t *testing.T, conn net.Conn, request string) {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Error(err)
	}
}

// A client that does not finish its request does not hold the connection.
func TestAdminEndsUnfinishedRequests(t *testing.T) {
	for name, request := range map[string]string{
		"a body":               "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"a body that is wrong": "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"a chunk":              "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a body of a profile":  "POST /debug/pprof/symbol HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			onAdmin(t, func(conn net.Conn) {
				began := time.Now()
				_ = conn.SetReadDeadline(began.Add(time.Hour))
				send(t, conn, request)
				if _, err := io.Copy(io.Discard, conn); err != nil || time.Since(began) > adminReadTimeout+time.Second {
					t.Errorf("the connection ended after %s: %v", time.Since(began), err)
				}
			})
		})
	}
}

// A client that does not read the answer does not hold the connection.
func TestAdminEndsUnreadAnswers(t *testing.T) {
	onAdmin(t, func(conn net.Conn) {
		send(t, conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		time.Sleep(adminWriteTimeout + time.Second)
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the connection is still open: read %d bytes, error %v", n, err)
		}
	})
}

func TestAdminLimitsHeaders(t *testing.T) {
	onAdmin(t, func(conn net.Conn) {
		go func() {
			_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 2*adminHeaderBytes)+"\r\n\r\n") // is cut
		}()
		if got, err := status(conn); err != nil || got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("the status is %d, error %v", got, err)
		}
	})
}

// status returns the status of the answer on a connection, which it reads whole.
func status(conn net.Conn) (int, error) {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// A profile may take longer than both the read and the write timeout.
func TestAdminServesLongProfiles(t *testing.T) {
	onAdmin(t, func(conn net.Conn) {
		began := time.Now()
		send(t, conn, "GET /debug/pprof/goroutine?seconds=120 HTTP/1.1\r\nHost: x\r\n\r\n")
		if got, err := status(conn); err != nil || got != http.StatusOK || time.Since(began) < 2*time.Minute {
			t.Errorf("after %s, the status is %d, error %v", time.Since(began), got, err)
		}
	})
}

// Whoever holds connections open does not keep probes out. Connections that are closed do
// not count.
func TestAdminLimitsConnections(t *testing.T) {
	withWorker(t, nil, func(address string) {
		// A connection that has had an answer stays open for two minutes without a request, and
		// one without a request only for seconds, in which a busy machine does not get through.
		dial := func() net.Conn {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return nil
			}
			t.Cleanup(func() { _ = conn.Close() })
			send(t, conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			if got, err := status(conn); err != nil || got != http.StatusOK {
				t.Errorf("/livez: %d, %v", got, err)
			}
			return conn
		}
		ends := func(conn net.Conn, within time.Duration) bool {
			_ = conn.SetReadDeadline(time.Now().Add(within))
			_, err := conn.Read(make([]byte, 1))
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
		alive := func() {
			if status, _ := get(t, "http://"+address+"/livez", nil); status != http.StatusOK {
				t.Errorf("/livez: %d", status)
			}
		}
		const briefly = 100 * time.Millisecond
		first := dial()
		for range adminConnections + 10 {
			alive()
		}
		if ends(first, briefly) {
			t.Error("connections that were closed count")
		}
		var others []net.Conn
		for range adminConnections {
			others = append(others, dial())
		}
		alive()
		if !ends(first, time.Minute) {
			t.Error("there is no limit of connections")
		}
		if ends(others[len(others)-1], briefly) {
			t.Error("a new connection was closed instead of the oldest")
		}
	})
}
