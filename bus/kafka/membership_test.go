package kafka_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"

	"github.com/morphogenetic/oona/bus"
)

// A group that is larger than the topic has a standby: it has joined, with
// nothing to open, and takes over when the other leaves.
func TestStandbyHasJoined(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		owners := [2]*owner{newOwner(), newOwner()}
		var members [2]*kafka.Member
		for i, o := range owners {
			members[i] = newGroup(t, cfg, group, o)
			if err := members[i].Joined(); !errors.Is(err, bus.ErrNotJoined) {
				t.Errorf("before it subscribes: %v", err)
			}
			consume(t, subscribe(t, members[i], topic))
			eventually(t, "the member has joined", func() bool { return members[i].Joined() == nil })
		}
		// Whatever the order of sessions, one of both has the partition now.
		eventually(t, "both have joined", func() bool { return members[0].Joined() == nil && members[1].Joined() == nil })
		first, standby := owners[0].holds(), owners[1].holds()
		if first+standby != 1 {
			t.Fatalf("%d and %d partitions are open, of one", first, standby)
		}
		leaves := 0
		if standby == 1 {
			leaves = 1
		}
		if err := members[leaves].Close(); err != nil {
			t.Fatal(err)
		}
		if err := members[leaves].Joined(); !errors.Is(err, bus.ErrNotJoined) {
			t.Errorf("after it has left: %v", err)
		}
		eventually(t, "the standby has taken over", func() bool { return owners[1-leaves].holds() == 1 && members[1-leaves].Joined() == nil })
	})
}

// A member whose partition cannot be opened has joined nothing that it can do.
func TestNotJoinedUntilOpen(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 2, false)
	o := newOwner()
	o.fail.Store(1)
	s := newGroup(t, cfg, unique("group"), o)
	consume(t, subscribe(t, s, topic))
	o.await(t, "refused", 1)
	eventually(t, "one partition is not read", func() bool { return errors.Is(s.Joined(), bus.ErrNotAssigned) })
	eventually(t, "all partitions are open", func() bool { return s.Joined() == nil })
	if n := o.holds(); n != 2 {
		t.Errorf("%d partitions are open", n)
	}
}

// Without a broker a member is told of it by its heartbeats, and joins again
// when the broker is back.
func TestNotJoinedWithoutTheBroker(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	s := newGroup(t, cfg, unique("group"), newOwner())
	consume(t, subscribe(t, s, topic))
	joined := func() bool { return s.Joined() == nil }
	eventually(t, "joined", joined)
	broker.down()
	eventually(t, "the loss is noticed", func() bool { return errors.Is(s.Joined(), bus.ErrNotJoined) })
	broker.up()
	eventually(t, "joined again", joined)
}

func TestSubscribesOnce(t *testing.T) {
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Config{Brokers: broker.Addrs, ClientID: "test"}
	topic := makeTopic(t, cfg, 1, false)
	s := newGroup(t, cfg, unique("group"), newOwner())
	consume(t, subscribe(t, s, topic))
	if _, err := s.Subscribe(t.Context(), topic); !errors.Is(err, bus.ErrSubscribed) {
		t.Errorf("%v", err)
	}
}

// Of two members with one instance the second has the partitions, and the first
// ends and says why: they do not fence each other for ever.
func TestTwoMembersWithOneInstance(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		var members [2]*kafka.Member
		var messages [2]<-chan *message.Message
		for i := range members {
			o := newOwner()
			var err error
			members[i], err = kafka.NewMember(cfg, kafka.MemberOptions{Group: group, Instance: "one"}, o, discard())
			if err != nil {
				t.Fatal(err)
			}
			messages[i] = subscribe(t, members[i], topic)
			o.await(t, "assigned", 1)
		}
		select {
		case msg, open := <-messages[0]:
			if open {
				t.Fatalf("%s came", msg.Payload)
			}
		case <-time.After(patience):
			t.Fatal("the first goes on")
		}
		if err := members[0].Joined(); !errors.Is(err, bus.ErrInstance) {
			t.Errorf("the first: %v", err)
		}
		if err := members[1].Joined(); err != nil {
			t.Errorf("the second: %v", err)
		}
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, newMessage("x"))
		take(t, messages[1], 1)
		for _, s := range members {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
