package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// handlerGrace is how long the end of an assignment waits for a handler that is working on a
// message.
const handlerGrace = rebalanceTimeout

// nackPause is the time between a nack and the redelivery.
const nackPause = 100 * time.Millisecond

// assigned is a partition that is assigned to this member.
type assigned struct {
	sarama.ConsumerGroupClaim
	consumer bus.Consumer
	topicID  sarama.Uuid
	calling  sync.Mutex // held during calls of the Consumer's methods, which must not be concurrent
	ahead    *ahead     // nil if there is no limit for all partitions together
	held     int64      // number of bytes of this partition that count in ahead
}

// commit calls Consumer.Commit.
func (a *assigned) commit() (bus.Commit, bool) {
	a.calling.Lock()
	defer a.calling.Unlock()
	return a.consumer.Commit()
}

// committed calls Consumer.Committed.
func (a *assigned) committed(c bus.Commit, err error) {
	a.calling.Lock()
	defer a.calling.Unlock()
	a.consumer.Committed(c, err)
}

// end calls Consumer.End.
func (a *assigned) end(offset int64) {
	a.calling.Lock()
	defer a.calling.Unlock()
	a.consumer.End(offset)
}

// handOut hands out the partition's messages, one at a time, until the session ends. It returns
// false if a handler is still working on the last one after the time grace.
func (a *assigned) handOut(session context.Context, out chan<- *message.Message, grace time.Duration) bool {
	messages := a.Messages()
	for {
		select {
		case r, open := <-messages:
			if !open {
				return true
			}
			a.ahead.took(a, r)
			if !a.handle(session, r, out, grace) {
				return false
			}
			if len(messages) == 0 {
				a.ahead.hold(a, 0)
			}
		case <-session.Done(): // if the connection is lost, the channel of messages may stay open
			return true
		}
	}
}

// handle hands out a record until it is acked or the session has ended. If the session has ended,
// the next owner gets the record.
func (a *assigned) handle(session context.Context, r *sarama.ConsumerMessage, out chan<- *message.Message, grace time.Duration) bool {
	msg := newMessage(r)
	at := positionOf(r)
	at.Consumer = a.consumer
	positioned := bus.WithPosition(session, at)
	for session.Err() == nil {
		msg.SetContext(positioned)
		select {
		case out <- msg:
		case <-session.Done():
			return true
		}
		if !settled(session, msg, grace) {
			return false
		}
		select {
		case <-msg.Acked():
			return true
		default: // it was nacked: deliver it again, before the next record
			msg = msg.Copy()
			bus.Pause(session, nackPause)
		}
	}
	return true
}

// settled waits until a message is acked or nacked. It returns false if this does not happen within
// the time grace after the end of the session.
func settled(session context.Context, msg *message.Message, grace time.Duration) bool {
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return true
	case <-session.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return true
	case <-timer.C:
		return false
	}
}
