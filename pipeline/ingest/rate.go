package ingest

import "time"

// rates limits what one client sends in a second. The zero value has no limits.
type rates struct {
	requests float64
	bytes    float64 // of bodies, before they are decompressed
}

// rateBurst is the time for which a client may use its rates in advance.
const rateBurst = time.Second

// The flags of the rates.
const (
	requestRate = "--client-requests"
	byteRate    = "--client-bytes"
)

// overRate charges a request and returns 0. If the client is above a rate, it charges nothing and
// returns the time after which the client will be below, and the flag of the rate. If it is above
// both, that is the rate which lasts longer.
func (c *client) overRate() (retry time.Duration, rate string) {
	s := c.of
	if s.rates == (rates{}) {
		return 0, ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	over, rate := c.due.requests.Sub(now), requestRate
	if bytes := c.due.bytes.Sub(now); bytes > over {
		over, rate = bytes, byteRate
	}
	if over >= rateBurst {
		return over - rateBurst + time.Millisecond, rate
	}
	owe(&c.due.requests, now, 1, s.rates.requests)
	return 0, ""
}

// received charges bytes of a body. They delay the next request.
func (c *client) received(bytes int) {
	s := c.of
	if s.rates.bytes == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	owe(&c.due.bytes, time.Now(), float64(bytes), s.rates.bytes)
}

// owe moves the time at which a rate is no longer used up.
func owe(due *time.Time, now time.Time, used, rate float64) {
	if rate == 0 {
		return
	}
	if due.Before(now) {
		*due = now
	}
	*due = due.Add(time.Duration(used / rate * float64(time.Second)))
}
