package kafka_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

var _ message.Subscriber = (*kafka.Reader)(nil)

// When the broker is up again, the reader continues with the next record. It skips and repeats no
// record, not even the one that a handler had.
func TestLogReaderResumes(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 2, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	publish(t, p, topic, numbered(0, 10, 0)...)
	messages := subscribe(t, newReader(t, cfg, bus.ReaderOptions{}), topic)
	take(t, messages, 9)
	inHand := next(t, messages)
	for round := 1; round <= 2; round++ {
		broker.down()
		broker.up()
		publish(t, p, topic, numbered(10*round, 10*round+10, 0)...)
		inHand.Ack()
		got := take(t, messages, 9)
		inHand = next(t, messages)
		got = append(got, string(inHand.Payload))
		for i, payload := range got {
			if payload != strconv.Itoa(10*round+i) {
				t.Fatalf("after outage %d came %q", round, got)
			}
		}
	}
	inHand.Ack()
}
