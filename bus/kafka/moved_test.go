package kafka_test

import (
	"context"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// moving is an owner that reads its partition from another offset than the session has
// opened it at, like an aggregator with --from-here.
type moving struct{ *committing }

func (m moving) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := m.take(a)
	if err == nil && a.Committed.Offset == bus.NoOffset {
		from = 2
		m.due <- bus.Commit{Offset: from, Metadata: "moved"}
	}
	return from, &committer{consumer{of}, m.committing}, err
}

// The last commit of an assignment is made even if none of its messages were handed out. The next
// assignment begins there, and the owner need not move it again.
func TestCommitOfAnAssignmentThatMoved(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		publish(t, newPublisher(t, cfg, bus.PublisherOptions{}), topic, numbered(0, 5, 0)...)
		o := moving{newCommitting()}
		o.fail.Store(1)
		messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
		o.await(t, "refused", 1)
		o.await(t, "assigned", 1)
		if err := o.outcome(t); err != nil {
			t.Errorf("the commit failed: %v", err)
		}
		o.await(t, "revoked", 1)
		if a := o.await(t, "assigned", 1)[0]; a.Committed != (bus.Commit{Offset: 2, Metadata: "moved"}) {
			t.Errorf("the next assignment: %+v", a.Assignment)
		}
		msg := <-messages
		if at, err := bus.PositionOf(msg); err != nil || at.Offset != 2 {
			t.Errorf("%+v, %v", at, err)
		}
		msg.Ack()
	})
}
