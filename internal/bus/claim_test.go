package bus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

func newClaim() (c *claim, revoke func()) {
	revoked := make(chan struct{})
	return &claim{revoked: revoked}, func() { close(revoked) }
}

func TestEndOfAClaimWaitsForTheHandler(t *testing.T) {
	for name, finish := range map[string]func(*message.Message) bool{
		"ack":  (*message.Message).Ack,
		"nack": (*message.Message).Nack,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClaim()
				msg := message.NewMessage("", nil)
				if !c.begin(msg) {
					t.Fatal("did not begin")
				}
				ended := make(chan bool, 1)
				go func() { ended <- c.end(time.Minute) }()
				time.Sleep(59 * time.Second)
				synctest.Wait()
				select {
				case <-ended:
					t.Fatal("ended with a message in hand")
				default:
				}
				if c.begin(message.NewMessage("", nil)) {
					t.Error("another message began")
				}
				finish(msg)
				if !<-ended {
					t.Error("says that the handler kept the message")
				}
			})
		})
	}
}

func TestEndOfAClaimDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClaim()
		c.begin(message.NewMessage("", nil))
		began := time.Now()
		if c.end(time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("ended after %s", time.Since(began))
		}
	})
}

func TestNothingBeginsOnceRevoked(t *testing.T) {
	c, revoke := newClaim()
	revoke()
	if c.begin(message.NewMessage("", nil)) {
		t.Error("a message began")
	}
	if !c.end(time.Hour) {
		t.Error("waited for a message that never began")
	}
}

// Messages that are not handed out are acked, so that Watermill lets go.
func TestForwardDropsWhatNobodyOwns(t *testing.T) {
	s := newClaims()
	c, revoke := newClaim()
	c.about.ID = "revoked"
	s.add(c)
	revoke()
	in, out := make(chan *message.Message), make(chan *message.Message)
	go s.forward(in, out)
	for _, id := range []string{"revoked", "unknown"} {
		msg := message.NewMessage("", nil)
		msg.Metadata["$claim"] = id
		in <- msg
		<-msg.Acked()
	}
	close(in)
	if _, open := <-out; open {
		t.Error("a message was handed out")
	}
}
