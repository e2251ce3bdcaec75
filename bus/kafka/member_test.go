package kafka_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

var _ message.Subscriber = (*kafka.Member)(nil)

// consume acks everything until the subscription ends.
func consume(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range messages {
			msg.Ack()
		}
	}()
	t.Cleanup(func() { <-done })
}

// When the broker is up again, the group reads again, from the oldest record on.
func TestGroupSurvivesTheBroker(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	publish(t, p, topic, numbered(0, 3, 0)...)
	o := newOwner()
	messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
	take(t, messages, 3)
	broker.down()
	broker.up()
	publish(t, p, topic, newMessage("after"))
	for last := ""; last != "after"; {
		last = take(t, messages, 1)[0]
	}
}
