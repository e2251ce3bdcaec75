package ingest

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections limits the number of open connections, and divides them among addresses by the same
// rule as sharing. It is necessary because a connection uses about 15 kB of memory, or 43 kB with
// TLS, and a client can keep it open without sending a request.
type connections struct {
	most    int
	sharing *sharing
	refused *prometheus.CounterVec

	mu   sync.Mutex
	open map[net.Conn]netip.Addr
	from map[netip.Addr]int64
}

// The limits of connections.
const (
	ofAddress = "address"
	ofAll     = "all"
)

func newConnections(most int, sharing *sharing) *connections {
	return &connections{
		most: most, sharing: sharing, open: make(map[net.Conn]netip.Addr), from: make(map[netip.Addr]int64),
		refused: counters("connections_refused_total", "Connections that were closed at once, by the limit that was reached: the share of one address (address), or --max-connections for all of them (all).", "by", ofAddress, ofAll),
	}
}

func (c *connections) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_connections", Help: "Open connections of clients.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.open))
	})
}

// changed is the hook of http.Server for the states of connections. The server calls it
// for a new connection before it reads from it.
func (s *Stage) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if by := s.connections.add(conn); by != "" {
			s.connections.refused.WithLabelValues(by).Inc()
			s.warn("new connections are closed, because there are too many (--max-connections, --client-share)", "by", by, "client", conn.RemoteAddr())
			_ = conn.Close() // the server notices this by itself
		}
	case http.StateClosed, http.StateHijacked:
		s.connections.remove(conn)
	}
}

// add adds a connection. If there are too many, it returns the limit that was reached.
func (c *connections) add(conn net.Conn) (by string) {
	address := networkOf(conn.RemoteAddr().String())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.open) >= c.most:
		return ofAll
	case !c.sharing.allows(c.from[address], int64(c.most-len(c.open))):
		return ofAddress
	}
	c.open[conn] = address
	c.from[address]++
	return ""
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	address, ok := c.open[conn]
	if !ok {
		return // the connection was refused, so it was not added
	}
	delete(c.open, conn)
	if c.from[address]--; c.from[address] == 0 {
		delete(c.from, address)
	}
}
