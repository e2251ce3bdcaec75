package kafka

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
)

// records is a partition with a number of records, as sarama assigns it.
type records struct {
	sarama.ConsumerGroupClaim
	messages chan *sarama.ConsumerMessage
}

func (r records) Messages() <-chan *sarama.ConsumerMessage { return r.messages }

// theConsumer is the consumer of all records.
var theConsumer = new(struct{ bus.Consumer })

// handingOut hands out some records, in a bubble of synctest.
type handingOut struct {
	out    chan *message.Message
	revoke func()
	result chan bool // result of handOut
}

func handOut(t *testing.T, count int, grace time.Duration) *handingOut {
	t.Helper()
	from := records{messages: make(chan *sarama.ConsumerMessage, count)}
	for i := range count {
		from.messages <- &sarama.ConsumerMessage{Offset: int64(i)}
	}
	session, revoke := context.WithCancel(context.Background())
	h := &handingOut{make(chan *message.Message), revoke, make(chan bool, 1)}
	c := &assigned{ConsumerGroupClaim: from, consumer: theConsumer}
	go func() { h.result <- c.handOut(session, h.out, grace) }()
	return h
}

// idle fails the test if a message is handed out, or the assignment has ended.
func (h *handingOut) idle(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case msg := <-h.out:
		t.Fatalf("%s was handed out", msg.Payload)
	case <-h.result:
		t.Fatal("the assignment has ended")
	default:
	}
}

// The end of a session waits for the handler of the last message. The context of the message ends. No
// other message is handed out, whether the handler acks or nacks.
func TestEndOfAnAssignmentWaitsForTheHandler(t *testing.T) {
	for name, finish := range map[string]func(*message.Message) bool{
		"ack":  (*message.Message).Ack,
		"nack": (*message.Message).Nack,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := handOut(t, 2, time.Minute)
				msg := <-h.out
				h.revoke()
				<-msg.Context().Done()
				time.Sleep(59 * time.Second)
				h.idle(t)
				finish(msg)
				if !<-h.result {
					t.Error("says that the handler kept the message")
				}
			})
		})
	}
}

func TestEndOfAnAssignmentDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handOut(t, 1, time.Minute)
		<-h.out
		h.revoke()
		began := time.Now()
		if <-h.result || time.Since(began) != time.Minute {
			t.Errorf("ended after %s", time.Since(began))
		}
	})
}

// A message that no handler receives does not delay the end of an assignment.
func TestEndOfAnAssignmentThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handOut(t, 1, time.Hour)
		synctest.Wait() // the message waits for a handler
		h.revoke()
		began := time.Now()
		if !<-h.result || time.Since(began) != 0 {
			t.Errorf("ended after %s", time.Since(began))
		}
	})
}

// A message that was nacked is delivered again after a pause, before the next one.
func TestOneMessageAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handOut(t, 3, time.Minute)
		defer h.revoke()
		for _, next := range []struct {
			offset int64
			settle func(*message.Message) bool
		}{
			{0, (*message.Message).Ack},
			{1, (*message.Message).Nack},
			{1, (*message.Message).Nack},
			{1, (*message.Message).Ack},
			{2, (*message.Message).Ack},
		} {
			msg := <-h.out
			h.idle(t)
			if at, err := bus.PositionOf(msg); err != nil || at.Offset != next.offset || at.Consumer != theConsumer {
				t.Fatalf("%+v came, want offset %d (%v)", at, next.offset, err)
			}
			next.settle(msg)
		}
	})
}

// A leader that does not answer does not delay the end of an assignment.
func TestEndIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	open, over := context.WithCancel(t.Context())
	broker.ControlKey(kmsg.ListOffsets.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		over()
		return nil, nil, true // no answer
	})
	s := &Member{offsets: &offsets{cfg: Config{Brokers: broker.ListenAddrs(), ClientID: "test"}}}
	if _, err := s.end(open, "t", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, although the assignment had ended", err)
	}
	if err := s.offsets.close(); err != nil {
		t.Error(err)
	}
	s.ending.Wait()
}
