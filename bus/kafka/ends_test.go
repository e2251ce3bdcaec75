package kafka_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// follower is an owner that records where its partition ends.
type follower struct {
	*committing
	end   atomic.Int64
	heard atomic.Int64 // number of reports
}

func (f *follower) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := f.take(a)
	return from, &following{&committer{consumer{of}, f.committing}, f}, err
}

type following struct {
	*committer
	by *follower
}

func (f *following) End(offset int64) {
	f.by.end.Store(offset)
	f.by.heard.Add(1)
}

var errCutOff = errors.New("cut off")

// An owner learns the end of its partition even if the fetcher is stuck. While the leader cannot be
// reached, it gets no answer, and commits are still made.
func TestEndsWithoutTheFetcher(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	var fetches, refusals atomic.Int64
	var refuse atomic.Bool
	goOn := make(chan struct{})
	broker.ControlKey(kmsg.Fetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		fetches.Add(1)
		broker.SleepControl(func() { <-goOn })
		return nil, nil, false
	})
	broker.ControlKey(kmsg.ListOffsets.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !refuse.Load() {
			return nil, nil, false
		}
		refusals.Add(1)
		return nil, errCutOff, true
	})

	cfg := kafka.Patient(kafka.Config{Brokers: broker.ListenAddrs(), ClientID: "test"})
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	o := &follower{committing: newCommitting()}
	messages := subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
	defer close(goOn) // otherwise the group would wait for the fetch
	o.await(t, "assigned", 1)
	publish(t, p, topic, numbered(0, 5, 0)...)
	eventually(t, "the end is heard", func() bool { return o.end.Load() == 5 })

	refuse.Store(true)
	publish(t, p, topic, numbered(5, 7, 0)...)
	before := refusals.Load()
	eventually(t, "the end is asked for in vain", func() bool { return refusals.Load() >= before+4 })
	heard := o.heard.Load()
	o.due <- bus.Commit{Offset: 3, Metadata: "committed"}
	if err := o.outcome(t); err != nil {
		t.Errorf("the commit failed: %v", err)
	}
	before = refusals.Load()
	eventually(t, "and again", func() bool { return refusals.Load() >= before+4 })
	if again := o.heard.Load(); again != heard || o.end.Load() != 5 {
		t.Errorf("the end %d was reported although the leader does not answer", o.end.Load())
	}

	refuse.Store(false)
	eventually(t, "the end is heard again", func() bool { return o.end.Load() == 7 })
	select {
	case msg := <-messages:
		t.Errorf("%s came", msg.Payload)
	default:
	}
	if fetches.Load() == 0 {
		t.Error("nothing was fetched: the fault did not fire")
	}
}
