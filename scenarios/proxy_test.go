package scenarios

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is a bad network between a client and a server. What it does to a
// connection is decided when that is made.
type proxy struct {
	listener net.Listener
	target   string
	next     func(n int64) treatment // of the nth connection
	wait     sync.WaitGroup

	accepted, reset, silent atomic.Int64

	mu   sync.Mutex
	open map[net.Conn]bool
}

// treatment is what becomes of a connection.
type treatment struct {
	latency time.Duration
	// resetAfter bytes to the server the connection is reset, after the server
	// had the time to do what it was asked; 0: never.
	resetAfter int64
	// deaf: what the server answers never arrives, and the connection stays.
	deaf bool
}

func startProxy(t *testing.T, target string, next func(n int64) treatment) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, next: next, open: make(map[net.Conn]bool)}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for conn := range p.open {
			_ = conn.Close()
		}
		p.open = nil
		p.mu.Unlock()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			return
		}
		n := p.accepted.Add(1)
		p.wait.Go(func() { p.carry(client.(*net.TCPConn), server, p.next(n)) })
	}
}

// keep notes connections that end with the proxy; false: it has ended.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		if p.open == nil {
			_ = conn.Close()
			continue
		}
		p.open[conn] = true
	}
	return p.open != nil
}

func (p *proxy) carry(client *net.TCPConn, server net.Conn, how treatment) {
	var answers sync.WaitGroup
	answers.Go(func() {
		switch {
		case how.deaf:
			p.silent.Add(1)
			_, _ = io.Copy(io.Discard, server)
		case how.resetAfter > 0:
			_, _ = io.Copy(io.Discard, server) // the client hears nothing before the reset
		default:
			_ = relay(client, server, how.latency, 0)
		}
		if !how.deaf {
			_ = client.Close()
		}
	})
	err := relay(server, client, how.latency, how.resetAfter)
	if errors.Is(err, errLimit) {
		time.Sleep(200 * time.Millisecond) // the server acts
		p.reset.Add(1)
		_ = client.SetLinger(0)
	}
	_ = client.Close()
	_ = server.Close()
	answers.Wait()
	p.mu.Lock()
	delete(p.open, client)
	delete(p.open, server)
	p.mu.Unlock()
}

var errLimit = errors.New("as many bytes as were to be carried")

// relay copies until the end, an error, or limit bytes.
func relay(to io.Writer, from io.Reader, latency time.Duration, limit int64) error {
	buffer := make([]byte, 32<<10)
	for carried := int64(0); ; {
		n, err := from.Read(buffer)
		if n > 0 {
			time.Sleep(latency)
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
			if carried += int64(n); limit > 0 && carried >= limit {
				return errLimit
			}
		}
		if err != nil {
			return err
		}
	}
}
