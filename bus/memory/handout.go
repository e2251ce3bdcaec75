package memory

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// nackPause is the time between a nack and the redelivery.
const nackPause = 100 * time.Millisecond

// handing hands out the messages of a partition, one at a time.
type handing struct {
	bus   *Bus
	log   *log
	at    bus.Position // of all messages, without offset, time and key
	out   chan<- *message.Message
	grace time.Duration    // how long to wait for the handler after ctx has ended
	acked func(next int64) // is called after each ack, unless it is nil
}

// handOut returns when ctx has ended and the last message is acked or nacked, or after
// grace.
func (h handing) handOut(ctx context.Context, next int64) {
	for {
		r, found := h.bus.read(ctx, h.log, next)
		if !found || !h.handle(ctx, r) {
			return
		}
		next = r.offset + 1
		if h.acked != nil {
			h.acked(next)
		}
	}
}

// handle hands out a record until it is acked. It returns false if ctx has ended.
func (h handing) handle(ctx context.Context, r record) bool {
	for ctx.Err() == nil {
		msg := r.message(ctx, h.at)
		select {
		case h.out <- msg:
		case <-ctx.Done():
			return false
		}
		if h.settled(ctx, msg) {
			return true
		}
		bus.Pause(ctx, nackPause)
	}
	return false
}

// settled waits until a message is acked (true) or nacked (false). After ctx has ended,
// it waits no longer than grace.
func (h handing) settled(ctx context.Context, msg *message.Message) bool {
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return false
	case <-ctx.Done():
	}
	timer := time.NewTimer(h.grace)
	defer timer.Stop()
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
	case <-timer.C:
	}
	return false
}
