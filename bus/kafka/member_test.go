package kafka_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
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

// The group goes on when the broker comes back, from the oldest record.
func TestGroupSurvivesTheBroker(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, kafka.PublisherOptions{DeliveryTimeout: time.Hour})
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

func TestGroupNeedsAName(t *testing.T) {
	_, err := kafka.NewMember(kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}, kafka.MemberOptions{}, newOwner(), discard())
	var wrong *oona.FieldError
	if !errors.As(err, &wrong) || wrong.Field != "--group" {
		t.Errorf("%v", err)
	}
}

// What Kafka's client would refuse at the start is refused by Validate.
func TestGroupInstanceIsValidated(t *testing.T) {
	cfg := kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}
	for instance, want := range map[string]string{"": "", "aggregate-0": "", "a b": "--group-instance", strings.Repeat("x", 300): "--group-instance"} {
		options := kafka.MemberOptions{Group: "g", Instance: instance}
		var wrong *oona.FieldError
		err := options.Validate(cfg)
		if errors.As(err, &wrong); (err == nil) != (want == "") || wrong != nil && wrong.Field != want {
			t.Errorf("%q: %v", instance, err)
		}
		if _, failed := kafka.NewMember(cfg, options, newOwner(), discard()); want != "" && !errors.As(failed, &wrong) {
			t.Errorf("%q: the start says %v", instance, failed)
		}
	}
}
