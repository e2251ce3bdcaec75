package ingest

import (
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/morphogenetic/oona/internal/access"
)

// clientKey identifies the client that sends a request: by the name of its token or certificate, or
// by its address if it has none.
type clientKey struct {
	name     string
	address  netip.Addr
	stranger bool // whether the client has no valid token or certificate although it needs one
}

// clientKeyOf returns the key of the client of a request.
func clientKeyOf(who *access.Identity, r *http.Request, stranger bool) clientKey {
	if who != nil {
		return clientKey{name: who.Name}
	}
	return clientKey{address: networkOf(r.RemoteAddr), stranger: stranger}
}

// networkOf returns the address of a peer. For IPv6 it is that of the peer's /64 network,
// because a host may use any address of its network.
func networkOf(peer string) netip.Addr {
	parsed, _ := netip.ParseAddrPort(peer) // all peers without a valid address count as one client
	address := parsed.Addr().Unmap().WithZone("")
	if !address.Is6() {
		return address
	}
	prefix, _ := address.Prefix(64)
	return prefix.Addr()
}

// client has the resources that one client uses at present. The mutex of the budget guards memory,
// leader, refused and rank. The mutex of sharing guards the other fields that are not atomic.
type client struct {
	of       *sharing
	key      clientKey
	refs     int          // number of requests and leases that use this struct
	requests atomic.Int32 // number of requests in progress
	held     [kinds]int
	waiting  [kinds][]chan struct{} // one for each request that waits; closed when it gets its slot
	turns    int                    // number of requests that are being decoded
	turning  []chan struct{}
	memory   int64        // number of bytes in all shares of the budget
	leader   *lease       // may take all free memory; may be nil
	refused  bool         // whether the last request for memory was refused because of the client's share
	rank     int64        // see byRank; 0 means that it has none yet
	spooled  atomic.Int64 // number of bytes of tensors that are being uploaded
	debtor   bool         // the client is in sharing.debtors
	paid     time.Time    // when the processor time that it has used will be paid for
	due      struct {     // when the rates will no longer be used up
		requests, bytes time.Time
	}
}

// join begins a request of a client. The request ends with leave.
func (s *sharing) join(key clientKey, now time.Time) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(key, now)
	return s.enrol(key, now)
}

// visit is like join, for a request that sends no data, such as a health check of a load balancer.
// Such a request must not count as a second client, because then a client that is otherwise alone
// would be limited.
func (s *sharing) visit(key clientKey, now time.Time) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enrol(key, now)
}

func (s *sharing) enrol(key clientKey, now time.Time) *client {
	s.forgetDebtors(now)
	c := s.clients[key]
	if c == nil {
		if last := len(s.unused) - 1; last >= 0 {
			c, s.unused = s.unused[last], s.unused[:last]
		} else {
			c = &client{of: s}
		}
		c.key = key
		s.clients[key] = c
	}
	c.refs++
	c.requests.Add(1)
	return c
}

func (c *client) leave() {
	c.requests.Add(-1)
	c.release()
}

// keep keeps the client known until release is called.
func (c *client) keep() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.refs++
}

func (c *client) release() {
	s := c.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.refs--; c.refs > 0 {
		return
	}
	switch {
	case c.debtor: // forgetDebtors will forget the client
	case c.owes(time.Now()):
		c.debtor = true
		s.debtors = append(s.debtors, c)
	default:
		s.forget(c)
	}
}

// owes reports whether the client has used so much processor time, or has sent so much, that it
// would get more than its share if it were forgotten now.
func (c *client) owes(now time.Time) bool {
	return c.paid.Sub(now) > paceBurst || c.due.requests.After(now) || c.due.bytes.After(now)
}

// forget forgets a client that uses nothing.
func (s *sharing) forget(c *client) {
	delete(s.clients, c.key)
	c.paid, c.due.requests, c.due.bytes, c.rank = time.Time{}, time.Time{}, time.Time{}, 0
	if len(s.unused) < mostUnused {
		s.unused = append(s.unused, c)
	}
}

// forgetDebtors forgets debtors that use nothing and owe nothing any more. It does so at most ten
// times a second. There are few debtors: each has recently used more processor time than paceBurst
// or, if there are rates, has sent something within the last seconds.
func (s *sharing) forgetDebtors(now time.Time) {
	if len(s.debtors) == 0 || now.Sub(s.looked) < 100*time.Millisecond {
		return
	}
	s.looked = now
	s.debtors = slices.DeleteFunc(s.debtors, func(c *client) bool {
		if c.refs == 0 && c.owes(now) {
			return false
		}
		c.debtor = false
		if c.refs == 0 {
			s.forget(c)
		}
		return true
	})
}

// alone reports whether the client has only one request. The share of the client does not limit such
// a request, so that a client can send every request that fits into the limits of ingest.
func (c *client) alone() bool { return c.requests.Load() == 1 }

// shift removes the first element of a list.
func shift[T any](list []T) (T, []T) {
	first := list[0]
	return first, slices.Delete(list, 0, 1)
}

func without[T comparable](list []T, one T) []T {
	if i := slices.Index(list, one); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
