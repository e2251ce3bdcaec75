package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// handlerGrace is how long the end of an assignment waits for a handler that has a
// message.
const handlerGrace = rebalanceTimeout

// nackPause is the time between a nack and the redelivery.
const nackPause = 100 * time.Millisecond

// assigned is a partition that is assigned to this member.
type assigned struct {
	sarama.ConsumerGroupClaim
	consumer bus.Consumer
	topicID  sarama.Uuid
	calling  sync.Mutex // Consumer's methods are called one at a time
	ahead    *ahead     // nil: what is fetched has no limit
	held     int64      // counted in ahead
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

// handOut hands out the partition's messages, one at a time, until session ends. It
// returns false if a handler still has the last one after grace.
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
		case <-session.Done(): // messages may stay open if the connection is lost
			return true
		}
	}
}

// handle hands out a record until it is acked or the session has ended. In the second
// case, the next owner gets it.
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
		default: // deliver it again, before the next one
			msg = msg.Copy()
			bus.Pause(session, nackPause)
		}
	}
	return true
}

// settled waits until a message is acked or nacked. It returns false if neither has
// happened for grace after the end of the session.
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
