package ingest

import (
	"context"
	"io"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
)

// The processor time of a client is estimated, and limited while other clients send: see charge.
// Decompressing and decoding are measured, and the rest is estimated by these constants.
const (
	requestCost = 200 * time.Microsecond // a request, without what depends on its size; measured, with its part of publishing
	byteCost    = 8 * time.Nanosecond    // a byte of a body that is large: reading, memory, compression for the bus
	largeBody   = 64 << 10               // bytes of a body that are part of requestCost
	refusedMore = 3                      // a request with bad content is charged this many times again, as nothing is lost if its client waits
	paceBurst   = 20 * time.Millisecond  // processor time that a client may use at once without a wait
	pacePiece   = 256 << 10              // bytes that are read or decompressed between waits
	othersFor   = time.Second            // how long after a request a client counts as sending
	leastPause  = 500 * time.Microsecond // a shorter wait is not worth a timer
)

// sender is a client that has sent something.
type sender struct {
	key clientKey
	at  time.Time
}

// note records that a client has sent a request. An unknown client does not count, so that it
// cannot slow down others.
func (s *sharing) note(key clientKey, now time.Time) {
	if key.stranger {
		return
	}
	if s.recent[0].key != key {
		s.recent[1] = s.recent[0]
	}
	s.recent[0] = sender{key, now}
}

// others reports whether a client other than this one has sent something recently.
func (s *sharing) others(key clientKey, now time.Time) bool {
	other := s.recent[0]
	if other.key == key {
		other = s.recent[1]
	}
	return now.Sub(other.at) < othersFor
}

// charge adds processor time to what the client has used, and returns how long the client must
// wait so that it does not use more than its share (a leaky bucket). It need not wait if no other
// client sends.
func (c *client) charge(cost time.Duration) (wait time.Duration) {
	s := c.of
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.share == 1 || !s.others(c.key, now) {
		c.paid = now
		return 0
	}
	if c.paid.Before(now) {
		c.paid = now
	}
	c.paid = c.paid.Add(time.Duration(float64(cost) / s.processors))
	if wait = c.paid.Sub(now) - paceBurst; wait > 0 {
		signal(s.owing)
	}
	return wait
}

// owed returns how long the client must still wait.
func (c *client) owed() time.Duration {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return time.Until(c.paid.Add(-paceBurst))
}

// pay charges processor time, waits as long as the client must, and returns how long that was. If
// the client would have to wait longer than most, pay waits for shareWait and returns false. It
// also returns false when ctx ends, or when held, the memory of the request, is refused. held may be nil.
func (c *client) pay(ctx context.Context, held *lease, cost, most time.Duration) (waited time.Duration, ok bool) {
	wait := c.charge(cost)
	if wait < leastPause {
		return 0, true
	}
	c.of.waitedTime.Inc()
	ctx, cancel := held.pauses(ctx)
	defer cancel()
	if wait > most {
		bus.Pause(ctx, shareWait)
		return shareWait, false
	}
	return wait, bus.Pause(ctx, wait)
}

// work measures the processor time of a request while it is decompressed and decoded, and
// charges it to the client. It is for one goroutine.
type work struct {
	by    *client
	ctx   context.Context // of its waits
	held  *lease          // its memory; nil: it has no limit
	place *place          // among the large bodies; nil: it is small
	since time.Time       // when the time that is not measured yet began
	took  time.Duration   // measured and not charged
	total time.Duration   // measured
	bytes int64           // that were decompressed
	piece int             // the part of bytes that is not charged
}

func (c *client) work() *work { return &work{by: c, ctx: context.Background(), since: time.Now()} }

// pause is called before a wait, and resume after it. A wait needs no processor.
func (w *work) pause() {
	now := time.Now()
	w.took, w.total, w.since = w.took+now.Sub(w.since), w.total+now.Sub(w.since), now
}

func (w *work) resume() { w.since = time.Now() }

// rest is called before a wait for something else than a processor, and goOn after it. During such
// a wait, another request of the client may be decoded.
func (w *work) rest() {
	w.pause()
	w.by.endTurn()
}

func (w *work) goOn() {
	w.by.resume()
	w.resume()
}

// inflated counts bytes that were decompressed. After each piece, the client pays for it. It returns
// an error if the request may not go on.
func (w *work) inflated(n int) error {
	w.bytes += int64(n)
	if w.piece += n; w.piece >= pacePiece {
		w.pay()
	}
	switch {
	case w.held.yielded():
		return errNoMemory
	case !w.settle():
		return errNoPlace
	}
	return nil
}

// pay lets the client pay for a piece. If it has to wait long, the request leaves its place.
func (w *work) pay() {
	w.pause()
	if w.place != nil && w.place.slept+w.by.owed() > shareWait {
		w.place.leave()
	}
	// A client cannot avoid the wait by closing the connection.
	waited, _ := w.by.pay(w.by.of.cut, w.held, w.took+time.Duration(w.piece)*byteCost, time.Hour)
	if w.place != nil {
		w.place.slept += waited
	}
	w.took, w.piece = 0, 0
	w.resume()
}

// end charges what is left. A request with bad content is charged several times.
func (w *work) end(refused *intake.Refusal) {
	w.pause()
	cost := w.took
	if w.bytes > largeBody {
		cost += time.Duration(w.piece) * byteCost
	}
	if refused != nil && refused.Retry == 0 {
		cost += (requestCost + w.total) * refusedMore
	}
	w.by.charge(cost)
}

// paced is a decompressor that counts what it decompresses.
type paced struct {
	io.Reader
	work *work
}

func (p *paced) Read(to []byte) (int, error) {
	n, err := p.Reader.Read(to)
	if refused := p.work.inflated(n); refused != nil {
		return n, refused
	}
	return n, err
}
