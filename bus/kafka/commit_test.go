package kafka_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// committing is an owner whose consumers make each commit in due once.
type committing struct {
	*owner
	due    chan bus.Commit
	result chan error
}

func newCommitting() *committing {
	return &committing{newOwner(), make(chan bus.Commit, 10), make(chan error, 10)}
}

func (c *committing) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := c.take(a)
	return from, &committer{consumer{of}, c}, err
}

type committer struct {
	consumer
	by *committing
}

func (c *committer) Commit() (bus.Commit, bool) {
	select {
	case commit := <-c.by.due:
		return commit, true
	default:
		return bus.Commit{}, false
	}
}

func (c *committer) Committed(_ bus.Commit, err error) { c.by.result <- err }

func (c *committing) outcome(t *testing.T) error {
	t.Helper()
	select {
	case err := <-c.result:
		return err
	case <-time.After(waitLimit):
		t.Fatal("no commit was made")
		return nil
	}
}

// A member that comes back with the same instance within the session timeout gets its
// partitions without a rebalance of the others, and can commit.
func TestStaticMembership(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, bus.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		for i := range int64(2) {
			o := newCommitting()
			s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: group, Instance: "one", CommitEvery: 50 * time.Millisecond}, o)
			if err != nil {
				t.Fatal(err)
			}
			take(t, subscribe(t, s, topic), 1)
			o.due <- bus.Commit{Offset: i + 1}
			if err := o.outcome(t); err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// remembering is an owner whose consumers commit what was read, and keep the result of
// the last commit.
type remembering struct{ *owner }

func (r remembering) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := r.take(a)
	return from, &remembered{consumer: consumer{of}}, err
}

type remembered struct {
	consumer
	mu      sync.Mutex
	read    int64 // offset after the last record that was read
	made    bool  // whether a commit was made
	outcome error
}

func (r *remembered) Commit() (bus.Commit, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bus.Commit{Offset: r.read}, r.read > 0
}

func (r *remembered) Committed(_ bus.Commit, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made, r.outcome = true, err
}

func (r *remembered) last() (err error, made bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcome, r.made
}

// A topic is deleted and created again. Before a member reads again, the topic grows beyond the offset
// up to which the member had read, so the reader continues in the middle of the new log. The member
// commits nothing for these records, and then hands out all records of the new log.
func TestTopicMadeAgainWhileItIsRead(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		spec := oona.TopicSpec{Name: makeTopic(t, cfg, 1, false), Partitions: 1}
		p := newPublisher(t, cfg, bus.PublisherOptions{})
		publish(t, p, spec.Name, numbered(0, 3, 0)...)
		o := remembering{newOwner()}
		s, err := kafka.New(cfg, discard()).Member(bus.MemberOptions{Group: unique("group"), CommitEvery: 100 * time.Millisecond}, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		messages := subscribe(t, s, spec.Name)
		var first, last *remembered
		for range 3 {
			msg := next(t, messages)
			first = position(t, msg).Consumer.(*remembered)
			msg.Ack()
		}
		o.await(t, "assigned", 1)

		if err := newAdmin(t, cfg).DeleteTopic(spec.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{spec}); err != nil {
			t.Fatal(err)
		}
		const records = 20
		publish(t, p, spec.Name, numbered(100, 100+records, 0)...)
		for wanted := int64(0); wanted < records; {
			msg := next(t, messages)
			at := position(t, msg)
			last = at.Consumer.(*remembered)
			if last != first {
				if at.Offset != wanted || string(msg.Payload) != strconv.FormatInt(100+at.Offset, 10) {
					t.Fatalf("offset %d came with %s, want offset %d", at.Offset, msg.Payload, wanted)
				}
				wanted++
			}
			last.mu.Lock()
			last.read = at.Offset + 1
			last.mu.Unlock()
			msg.Ack()
		}
		if err, made := first.last(); made && err == nil {
			t.Error("what was read of the new log was committed")
		}
		o.await(t, "revoked", 1)
		o.await(t, "assigned", 1)
		eventually(t, "the new log is committed", func() bool { err, made := last.last(); return made && err == nil })
	})
}
