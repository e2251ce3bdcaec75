package scenarios

import (
	"strings"
	"sync/atomic"
	"time"
)

// network has a proxy for each broker, through which the workers reach it.
type network struct {
	proxies []*proxy       // of brokers 1, 2, 3
	greets  []atomic.Int32 // fates of their new connections
}

// startNetwork starts proxies for the brokers. Workers that start with its addresses use only
// the proxies.
func (w *world) startNetwork() *network {
	w.Helper()
	routes := kafka.Routes()
	n := &network{greets: make([]atomic.Int32, len(routes))}
	for i, route := range routes {
		n.proxies = append(n.proxies, startProxy(w.T, route.Proxy, route.Target, func(int64) fate { return fate(n.greets[i].Load()) }))
	}
	return n
}

func (n *network) addresses() string {
	var all []string
	for _, p := range n.proxies {
		all = append(all, p.address())
	}
	return strings.Join(all, ",")
}

// sever makes connections to brokers half open: the present ones, and new ones until heal.
func (n *network) sever(f fate, brokers ...int) {
	for _, id := range brokers {
		n.greets[id-1].Store(int32(f))
		n.proxies[id-1].meet(f)
	}
}

// heal makes new connections work. Connections that are half open stay so.
func (n *network) heal() {
	for i := range n.greets {
		n.greets[i].Store(int32(sound))
	}
}

func (n *network) meet(f fate) {
	for _, p := range n.proxies {
		p.meet(f)
	}
}

func (n *network) delay(latency time.Duration) {
	for _, p := range n.proxies {
		p.latency.Store(int64(latency))
	}
}

// sum adds up a counter of all proxies.
func (n *network) sum(counter func(*proxy) *atomic.Int64) (total int64) {
	for _, p := range n.proxies {
		total += counter(p).Load()
	}
	return total
}

func resets(p *proxy) *atomic.Int64   { return &p.resets }
func halfOpen(p *proxy) *atomic.Int64 { return &p.halfOpen }
func held(p *proxy) *atomic.Int64     { return &p.held }
func accepted(p *proxy) *atomic.Int64 { return &p.accepted }
