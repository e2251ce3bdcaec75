package kafka_test

import (
	"errors"
	"testing"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"

	"github.com/morphogenetic/oona/bus"
)

// A member whose partition cannot be opened has not joined.
func TestNotJoinedUntilOpen(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t, embedded.Options{})
	cfg := kafka.Patient(kafka.Config{Brokers: broker.Addrs, ClientID: "test"})
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

// Without a broker, failing heartbeats tell a member that it is not in its group. It
// joins again when the broker is back.
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
