package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// handlerGrace is how long the end of an assignment waits for the message that is in
// a handler's hands.
const handlerGrace = rebalanceTimeout

// nackPause is between a message that was nacked and its redelivery.
const nackPause = 100 * time.Millisecond

// assigned is a partition that this member owns.
type assigned struct {
	sarama.ConsumerGroupClaim
	consumer bus.Consumer
	topicID  sarama.Uuid
	calling  sync.Mutex // of the consumer's methods, which are called one at a time
}

// commit asks the consumer what may be committed.
func (a *assigned) commit() (bus.Commit, bool) {
	a.calling.Lock()
	defer a.calling.Unlock()
	return a.consumer.Commit()
}

// committed tells the consumer what became of a commit.
func (a *assigned) committed(c bus.Commit, err error) {
	a.calling.Lock()
	defer a.calling.Unlock()
	a.consumer.Committed(c, err)
}

// end tells the consumer where the partition ends.
func (a *assigned) end(offset int64) {
	a.calling.Lock()
	defer a.calling.Unlock()
	a.consumer.End(offset)
}

// handOut hands the partition's messages out, one at a time, until session ends. It
// returns false when a handler still has the last one after grace.
func (a *assigned) handOut(session context.Context, out chan<- *message.Message, grace time.Duration) bool {
	messages := a.Messages()
	for {
		select {
		case r, open := <-messages:
			if !open {
				return true
			}
			if !a.handle(session, r, out, grace) {
				return false
			}
		case <-session.Done(): // messages may stay open while the connection is lost
			return true
		}
	}
}

// handle hands a record out until it is acked, or the session has ended: then
// it is the next owner's.
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
		default: // it comes again, in place
			msg = msg.Copy()
			bus.Pause(session, nackPause)
		}
	}
	return true
}

// settled waits until a handler has acked or nacked a message. It returns false
// when it has done neither for so long after the end of the session.
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
