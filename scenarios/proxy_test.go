package scenarios

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// proxy is a network between clients and a server, with faults on demand.
type proxy struct {
	listener net.Listener
	target   string
	greet    func(n int64) fate // returns the fate of the nth connection, from 1 on

	latency atomic.Int64 // nanoseconds in each direction

	accepted, resets, halfOpen atomic.Int64 // numbers of connections
	held                       atomic.Int64 // number of bytes that were not forwarded

	ctx  context.Context // ends with the proxy
	wait sync.WaitGroup

	mu    sync.Mutex
	links map[*link]bool
}

// fate is the fault of a connection. Half-open connections stay so, as the protocol would be
// broken after a gap.
type fate int32

const (
	sound fate = iota
	torn       // reset during the next request, of which half arrives
	lost       // reset at the next answer, of which nothing arrives
	deaf       // half open: the server receives and acts, the client receives nothing
	dead       // half open: nothing is forwarded either way
)

// link is a connection of a client through the proxy.
type link struct {
	proxy          *proxy
	client, server *net.TCPConn
	fate           atomic.Int32
}

// startProxy listens on an address, and forwards to a target. greet may be nil.
func startProxy(t *testing.T, address, target string, greet func(n int64) fate) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &proxy{listener: listener, target: target, greet: greet, ctx: ctx, links: make(map[*link]bool)}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		for _, l := range p.open() {
			l.close()
		}
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
		l := &link{proxy: p, client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
		n := p.accepted.Add(1)
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		if p.greet != nil {
			l.meet(p.greet(n)) // after the link is listed, so that a change of greet reaches it
		}
		if p.ctx.Err() != nil { // the link may have been added after Close looked at links
			l.close()
		}
		p.wait.Go(l.carry)
	}
}

// open returns the open connections.
func (p *proxy) open() (links []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// meet gives a fate to the open connections.
func (p *proxy) meet(f fate) {
	for _, l := range p.open() {
		l.meet(f)
	}
}

func (l *link) meet(f fate) {
	for {
		old := fate(l.fate.Load())
		if old == f || old >= deaf {
			return
		}
		if l.fate.CompareAndSwap(int32(old), int32(f)) {
			if f >= deaf {
				l.proxy.halfOpen.Add(1)
			}
			return
		}
	}
}

func (l *link) silent() bool { return fate(l.fate.Load()) >= deaf }

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// reset resets the connection.
func (l *link) reset() {
	l.proxy.resets.Add(1)
	_ = l.client.SetLinger(0)
	_ = l.server.SetLinger(0)
	l.close()
}

// carry forwards until the connection ends. If it is half open, the client does not notice
// when the server closes it.
func (l *link) carry() {
	var answers sync.WaitGroup
	answers.Go(func() {
		l.relay(l.client, l.server, lost, deaf)
		if !l.silent() {
			_ = l.client.Close()
		}
	})
	l.relay(l.server, l.client, torn, dead)
	l.close()
	answers.Wait()
	l.proxy.mu.Lock()
	delete(l.proxy.links, l)
	l.proxy.mu.Unlock()
}

// relay forwards bytes in one direction. If the fate is to reset, it resets the connection. If
// the fate is to hold, it reads bytes without forwarding them.
func (l *link) relay(to, from *net.TCPConn, resets, holds fate) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if latency := time.Duration(l.proxy.latency.Load()); n > 0 && latency > 0 && !bus.Pause(l.proxy.ctx, latency) {
			return
		}
		f := fate(l.fate.Load())
		switch {
		case n == 0:
		case f == resets:
			if f == torn {
				_, _ = to.Write(buffer[:n/2])
			}
			l.reset()
			return
		case f >= holds:
			l.proxy.held.Add(int64(n))
		default:
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
