package ingest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// peer is a connection from an address.
type peer struct {
	net.Conn
	address net.TCPAddr
}

func (p *peer) RemoteAddr() net.Addr { return &p.address }

// dialFrom connects from an address.
func (p *pipes) dialFrom(host byte) net.Conn {
	client, server := net.Pipe()
	p.accepted <- &peer{server, net.TCPAddr{IP: net.IPv4(10, 0, 0, host), Port: 1000}}
	return client
}

// One address gets its share of the connections, however many it opens, and all together
// no more than the limit. Others can still connect. What is closed counts no longer.
func TestConnectionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) { c.MaxConnections = 8 })
		listener, end := serve(t, s)
		open := func(host byte, n int) (conns []net.Conn) {
			for range n {
				conns = append(conns, listener.dialFrom(host))
			}
			synctest.Wait()
			return conns
		}
		wants := func(what string, open int, address, all float64) {
			t.Helper()
			synctest.Wait()
			if got := len(s.connections.open); got != open {
				t.Errorf("%s: %d connections are open, want %d", what, got, open)
			}
			for by, want := range map[string]float64{ofAddress: address, ofAll: all} {
				if got := testutil.ToFloat64(s.connections.refused.WithLabelValues(by)); got != want {
					t.Errorf("%s: %g connections were refused by %s, want %g", what, got, by, want)
				}
			}
		}
		first := open(1, 100)
		wants("one address", 4, 96, 0)
		if _, err := first[99].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a connection too many ends with %v", err)
		}
		other := open(2, 1)[0]
		go func() { _, _ = io.WriteString(other, "GET /v1/frames HTTP/1.1\r\nHost: x\r\n\r\n") }()
		answer, err := http.ReadResponse(bufio.NewReader(other), nil)
		if err != nil || answer.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("another address is answered %v, %v", answer, err)
		}
		answer.Body.Close()
		wants("another address", 5, 96, 0)
		rest := append(open(3, 1), append(open(4, 1), open(5, 2)...)...)
		wants("many addresses", 8, 96, 1)
		for _, conn := range append(append(first, other), rest...) {
			conn.Close()
		}
		time.Sleep(time.Minute)
		wants("afterwards", 0, 96, 1)
		if n := len(s.connections.from); n != 0 {
			t.Errorf("%d addresses are known afterwards", n)
		}
		end()
	})
}

// One client that uploads without end gets its share of the bytes for tensors, and another
// one can upload.
func TestOneClientLeavesUploadsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), func(c *Config) {
			c.MaxBodyBytes, c.MaxUploadBytes, c.Tensors = 1000, 10_000, newStore(t)
		})
		listener, end := serve(t, s)
		var conns []net.Conn
		for range 20 {
			conn := listener.dialFrom(1)
			conns = append(conns, conn)
			if _, err := io.WriteString(conn, putHeader+"Content-Length: 1000\r\n\r\n"+strings.Repeat("x", 950)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if taken := s.spools.taken.Load(); taken < 4_000 || taken > 5_950 {
			t.Errorf("one client has %d of 10,000 bytes, want a half", taken)
		}
		if w := put(s, aboveIt[:1000]); w.Code != http.StatusCreated { // from another address
			t.Errorf("another client is answered %d %s", w.Code, w.Body)
		}
		for _, conn := range conns {
			conn.Close()
		}
		end()
		if taken := s.spools.taken.Load(); taken != 0 || len(s.sharing.clients) != 0 {
			t.Errorf("%d bytes are not given back, %d clients are known", taken, len(s.sharing.clients))
		}
	})
}
