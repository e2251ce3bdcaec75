package kafka_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// committing is an owner whose consumers commit what it is given, once each.
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
	case <-time.After(patience):
		t.Fatal("no commit was made")
		return nil
	}
}

// The next owner begins at the committed offset and gets the metadata, also
// when they changed at the same offset, or went back.
func TestCommitReachesTheNextOwner(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		largest := strings.Repeat("m", 4096)
		for i, commit := range []bus.Commit{{Offset: 5, Metadata: "first"}, {Offset: 5, Metadata: "second"}, {Offset: 3, Metadata: largest}} {
			o := newCommitting()
			s := newGroup(t, cfg, group, o)
			messages := subscribe(t, s, topic)
			claim := o.await(t, "assigned", 1)[0]
			want := bus.Commit{Offset: bus.NoOffset}
			first := "0"
			if i > 0 {
				want = []bus.Commit{{Offset: 5, Metadata: "first"}, {Offset: 5, Metadata: "second"}}[i-1]
				first = "5"
			}
			if claim.Committed != want || claim.Partitions != 1 || claim.LogStart != 0 {
				t.Errorf("claim %d is %+v, want the commit %+v", i, claim, want)
			}
			if got := take(t, messages, 1)[0]; got != first {
				t.Errorf("claim %d begins with %s, want %s", i, got, first)
			}
			o.due <- commit
			if err := o.outcome(t); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		o := newOwner()
		subscribe(t, newGroup(t, cfg, group, o), topic)
		if claim := o.await(t, "assigned", 1)[0]; claim.Committed.Offset != 3 || claim.Committed.Metadata != largest {
			t.Errorf("the last commit is %d with %d bytes", claim.Committed.Offset, len(claim.Committed.Metadata))
		}
	})
}

// What is due when a member leaves is committed before its claim closes.
func TestCommitAtTheEnd(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		o := newCommitting()
		s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: group, CommitEvery: time.Hour}, o, discard())
		if err != nil {
			t.Fatal(err)
		}
		take(t, subscribe(t, s, topic), 4)
		o.due <- bus.Commit{Offset: 4, Metadata: "last"}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := o.outcome(t); err != nil {
			t.Fatal(err)
		}
		next := newOwner()
		subscribe(t, newGroup(t, cfg, group, next), topic)
		if claim := next.await(t, "assigned", 1)[0]; claim.from != 4 || claim.Committed.Metadata != "last" {
			t.Errorf("claim is %+v", claim)
		}
	})
}

// On Kafka a commit with too much metadata is refused, and the owner is told.
// The embedded broker takes any.
func TestTooMuchMetadataIsAnError(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		if strings.HasSuffix(t.Name(), "embedded") {
			return
		}
		topic := makeTopic(t, cfg, 1, false)
		o := newCommitting()
		subscribe(t, newGroup(t, cfg, unique("group"), o), topic)
		o.await(t, "assigned", 1)
		o.due <- bus.Commit{Offset: 0, Metadata: strings.Repeat("m", 4097)}
		if err := o.outcome(t); err == nil {
			t.Error("4097 bytes of metadata were taken")
		}
	})
}

// leave has a member of a group take some messages, commit and leave.
func leave(t *testing.T, cfg kafka.Config, topic, group string, taken int, commit bus.Commit) {
	t.Helper()
	o := newCommitting()
	s := newGroup(t, cfg, group, o)
	take(t, subscribe(t, s, topic), taken)
	o.due <- commit
	if err := o.outcome(t); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// refused returns the assignment that the next member refuses, and of which
// nothing is handed out.
func refused(t *testing.T, cfg kafka.Config, topic, group string) *assignment {
	t.Helper()
	o := newOwner()
	o.strict = true
	s := newGroup(t, cfg, group, o)
	messages := subscribe(t, s, topic)
	lost := o.await(t, "lost", 1)[0]
	select {
	case msg := <-messages:
		t.Errorf("%s was handed out", msg.Payload)
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return lost
}

// When retention overtakes the commit, nothing is skipped in silence: the owner
// is asked, and refuses.
func TestRetentionBeyondTheCommit(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		leave(t, cfg, topic, group, 2, bus.Commit{Offset: 2})
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 6}); err != nil {
			t.Fatal(err)
		}
		if claim := refused(t, cfg, topic, group); claim.Committed.Offset != 2 || claim.LogStart != 6 {
			t.Errorf("claim is %+v", claim)
		}
	})
}

// With FromHere such a partition is read from its oldest record, and what the
// owner commits then is what the next member goes on from.
func TestRetentionBeyondTheCommitFromHere(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		leave(t, cfg, topic, group, 2, bus.Commit{Offset: 2, Metadata: "before"})
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 6}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			commit   bus.Commit // that the member finds
			start    int64
			payloads string
		}{
			{bus.Commit{Offset: 2, Metadata: "before"}, 6, "6 7"},
			{bus.Commit{Offset: 8, Metadata: "anew"}, 8, "8 9"},
		} {
			o := newCommitting()
			s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: group, CommitEvery: 50 * time.Millisecond}, o, discard())
			if err != nil {
				t.Fatal(err)
			}
			messages := subscribe(t, s, topic)
			if got := strings.Join(take(t, messages, 2), " "); got != want.payloads {
				t.Errorf("messages %s, want %s", got, want.payloads)
			}
			if c := o.await(t, "assigned", 1)[0]; c.Committed != want.commit || c.from != want.start || c.LogStart != 6 {
				t.Errorf("claim is %+v, want it committed at %+v and begun at %d", c, want.commit, want.start)
			}
			if want.start == 6 {
				o.due <- bus.Commit{Offset: 8, Metadata: "anew"}
				if err := o.outcome(t); err != nil {
					t.Error(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A log that has lost its end holds less than the group has read: the owner is asked, and refuses. With FromHere
// it is read from its oldest record.
func TestLogThatEndsBeforeTheCommit(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 3, 0)...)
		lost := bus.Commit{Offset: 9, Metadata: "of records that are lost"}
		leave(t, cfg, topic, group, 3, lost)
		if claim := refused(t, cfg, topic, group); claim.Committed != lost || claim.LogEnd != 3 {
			t.Errorf("claim is %+v", claim)
		}

		anew := newCommitting()
		s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: group, CommitEvery: 50 * time.Millisecond}, anew, discard())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(take(t, subscribe(t, s, topic), 3), " "); got != "0 1 2" {
			t.Errorf("messages %s", got)
		}
		if c := anew.await(t, "assigned", 1)[0]; c.Committed != lost || c.from != 0 || c.LogEnd != 3 {
			t.Errorf("claim is %+v", c)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// reaching is an owner that finds a log short which ends before what the commit's
// metadata say.
type reaching struct {
	*owner
	asked chan<- struct{}
}

func (r *reaching) Assign(ctx context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	r.asked <- struct{}{}
	if readTo := int64(a.Committed.Metadata[len(a.Committed.Metadata)-1] - '0'); readTo > a.LogEnd && !a.Settled {
		return 0, nil, bus.ErrShort
	}
	return r.owner.Assign(ctx, a)
}

// What the log must reach is the owner's to say. A log that reaches it a moment
// later is sound: its leader was new.
func TestLogThatReachesTheCommitInAMoment(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, topic, numbered(0, 3, 0)...)
		leave(t, cfg, topic, group, 1, bus.Commit{Offset: 1, Metadata: "read to 4"})
		asked := make(chan struct{}, 1000)
		next := &reaching{newOwner(), asked}
		s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: group}, next, discard())
		if err != nil {
			t.Fatal(err)
		}
		messages := subscribe(t, s, topic)
		<-asked // and the log ends at 3
		publish(t, p, topic, numbered(3, 4, 0)...)
		if got := strings.Join(take(t, messages, 3), " "); got != "1 2 3" {
			t.Errorf("messages %s", got)
		}
		if c := next.await(t, "assigned", 1)[0]; c.from != 1 || c.LogEnd != 4 {
			t.Errorf("claim is %+v", c)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A member that comes back under its instance's name within the session timeout
// gets its partitions without a rebalance of the others, and may commit.
func TestStaticMembership(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		for i := range int64(2) {
			o := newCommitting()
			s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: group, Instance: "one", CommitEvery: 50 * time.Millisecond}, o, discard())
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

// remembering is an owner whose consumers commit what they are told was read, and
// keep what became of the last commit.
type remembering struct{ *owner }

func (r remembering) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, of, err := r.take(a)
	return from, &remembered{consumer: consumer{of}}, err
}

type remembered struct {
	consumer
	mu      sync.Mutex
	read    int64 // the offset after the last record
	made    bool  // a commit
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

// A topic is deleted and made again, and grows past where a member has read,
// before the member reads again: its reader goes on in the middle of the new log.
// Nothing is committed of that, and all of the new log is handed out.
func TestTopicMadeAgainWhileItIsRead(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		spec := oona.TopicSpec{Name: makeTopic(t, cfg, 1, false), Partitions: 1}
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, spec.Name, numbered(0, 3, 0)...)
		o := remembering{newOwner()}
		s, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: unique("group"), CommitEvery: 100 * time.Millisecond}, o, discard())
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
		if _, err := kafka.ApplyTopics(t.Context(), cfg, []oona.TopicSpec{spec}); err != nil {
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
		if err, made := first.last(); made && !errors.Is(err, bus.ErrAnotherTopic) {
			t.Errorf("what was read of the new log was committed: %v", err)
		}
		o.await(t, "revoked", 1)
		o.await(t, "assigned", 1)
		eventually(t, "the new log is committed", func() bool { err, made := last.last(); return made && err == nil })
	})
}
