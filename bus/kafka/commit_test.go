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
	"github.com/morphogenetic/oona/bus/kafka"
)

// committing is an owner that commits what it is given, once each.
type committing struct {
	*owner
	due    chan oona.Commit
	result chan error
}

func newCommitting() *committing {
	return &committing{newOwner(), make(chan oona.Commit, 10), make(chan error, 10)}
}

func (c *committing) Commit(oona.Claim) (oona.Commit, bool) {
	select {
	case commit := <-c.due:
		return commit, true
	default:
		return oona.Commit{}, false
	}
}

func (c *committing) Committed(_ oona.Claim, _ oona.Commit, err error) { c.result <- err }

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
		for i, commit := range []oona.Commit{{Offset: 5, Metadata: "first"}, {Offset: 5, Metadata: "second"}, {Offset: 3, Metadata: largest}} {
			o := newCommitting()
			s := newGroup(t, cfg, group, o)
			messages := subscribe(t, s, topic)
			claim := o.await(t, "open", 1)[0]
			want := oona.Commit{Offset: oona.NoOffset}
			first := "0"
			if i > 0 {
				want = []oona.Commit{{Offset: 5, Metadata: "first"}, {Offset: 5, Metadata: "second"}}[i-1]
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
		if claim := o.await(t, "open", 1)[0]; claim.Committed.Offset != 3 || claim.Committed.Metadata != largest {
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
		s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, CommitEvery: time.Hour}, o, discard())
		if err != nil {
			t.Fatal(err)
		}
		take(t, subscribe(t, s, topic), 4)
		o.due <- oona.Commit{Offset: 4, Metadata: "last"}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := o.outcome(t); err != nil {
			t.Fatal(err)
		}
		next := newOwner()
		subscribe(t, newGroup(t, cfg, group, next), topic)
		if claim := next.await(t, "open", 1)[0]; claim.Start != 4 || claim.Committed.Metadata != "last" {
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
		o.await(t, "open", 1)
		o.due <- oona.Commit{Offset: 0, Metadata: strings.Repeat("m", 4097)}
		if err := o.outcome(t); err == nil {
			t.Error("4097 bytes of metadata were taken")
		}
	})
}

// leave has a member of a group take some messages, commit and leave.
func leave(t *testing.T, cfg kafka.Config, topic, group string, taken int, commit oona.Commit) {
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

// refusing refuses a claim whose log does not hold what the commit needs.
type refusing struct{ *owner }

var errLost = errors.New("lost")

func (r refusing) Open(ctx context.Context, c oona.Claim) error {
	if at := c.Committed.Offset; at != oona.NoOffset && (at < c.LogStart || at > c.HighWater) {
		r.events <- event{"lost", c}
		return errLost
	}
	return r.owner.Open(ctx, c)
}

// refused returns the claim that the next member refuses, and to whom nothing is
// handed out.
func refused(t *testing.T, cfg kafka.Config, topic, group string) oona.Claim {
	t.Helper()
	r := refusing{newOwner()}
	s := newGroup(t, cfg, group, r)
	messages := subscribe(t, s, topic)
	claim := r.await(t, "lost", 1)[0]
	select {
	case msg := <-messages:
		t.Errorf("%s was handed out", msg.Payload)
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return claim
}

// When retention overtakes the commit, nothing is skipped in silence: the owner
// is asked, and refuses.
func TestRetentionBeyondTheCommit(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		publish(t, newPublisher(t, cfg, kafka.PublisherOptions{}), topic, numbered(0, 10, 0)...)
		leave(t, cfg, topic, group, 2, oona.Commit{Offset: 2})
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
		leave(t, cfg, topic, group, 2, oona.Commit{Offset: 2, Metadata: "before"})
		if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{0: 6}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			commit   oona.Commit // that the member finds
			start    int64
			payloads string
		}{
			{oona.Commit{Offset: 2, Metadata: "before"}, 6, "6 7"},
			{oona.Commit{Offset: 8, Metadata: "anew"}, 8, "8 9"},
		} {
			o := newCommitting()
			s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, FromHere: true, CommitEvery: 50 * time.Millisecond}, o, discard())
			if err != nil {
				t.Fatal(err)
			}
			messages := subscribe(t, s, topic)
			if got := strings.Join(take(t, messages, 2), " "); got != want.payloads {
				t.Errorf("messages %s, want %s", got, want.payloads)
			}
			if c := o.await(t, "open", 1)[0]; c.Committed != want.commit || c.Start != want.start || c.LogStart != 6 {
				t.Errorf("claim is %+v, want it committed at %+v and begun at %d", c, want.commit, want.start)
			}
			if want.start == 6 {
				o.due <- oona.Commit{Offset: 8, Metadata: "anew"}
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
		lost := oona.Commit{Offset: 9, Metadata: "of records that are lost"}
		leave(t, cfg, topic, group, 3, lost)
		if claim := refused(t, cfg, topic, group); claim.Committed != lost || claim.HighWater != 3 {
			t.Errorf("claim is %+v", claim)
		}

		anew := newCommitting()
		s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, FromHere: true, CommitEvery: 50 * time.Millisecond}, anew, discard())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(take(t, subscribe(t, s, topic), 3), " "); got != "0 1 2" {
			t.Errorf("messages %s", got)
		}
		if c := anew.await(t, "open", 1)[0]; c.Committed != lost || c.Start != 0 || c.HighWater != 3 {
			t.Errorf("claim is %+v", c)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// What the log must reach is the owner's to say. A log that reaches it a moment
// later is sound: its leader was new.
func TestLogThatReachesTheCommitInAMoment(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic, group := makeTopic(t, cfg, 1, false), unique("group")
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, topic, numbered(0, 3, 0)...)
		leave(t, cfg, topic, group, 1, oona.Commit{Offset: 1, Metadata: "read to 4"})
		asked := make(chan struct{}, 1000)
		next := newOwner()
		s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, Start: func(_ context.Context, c oona.Claim) (oona.Start, error) {
			asked <- struct{}{}
			readTo := int64(c.Committed.Metadata[len(c.Committed.Metadata)-1] - '0')
			return oona.Start{From: c.Committed.Offset, Short: readTo > c.HighWater}, nil
		}}, next, discard())
		if err != nil {
			t.Fatal(err)
		}
		messages := subscribe(t, s, topic)
		<-asked // and the log ends at 3
		publish(t, p, topic, numbered(3, 4, 0)...)
		if got := strings.Join(take(t, messages, 3), " "); got != "1 2 3" {
			t.Errorf("messages %s", got)
		}
		if c := next.await(t, "open", 1)[0]; c.Start != 1 || c.HighWater != 4 {
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
			s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: group, Instance: "one", CommitEvery: 50 * time.Millisecond}, o, discard())
			if err != nil {
				t.Fatal(err)
			}
			take(t, subscribe(t, s, topic), 1)
			o.due <- oona.Commit{Offset: i + 1}
			if err := o.outcome(t); err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// following is an owner that commits what it is told was read, and keeps what
// became of each commit.
type following struct {
	*owner
	mu        sync.Mutex
	read      map[string]int64 // by claim, the offset after the last record
	committed map[string]error // by claim, the last outcome
}

func (f *following) Commit(c oona.Claim) (oona.Commit, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, read := f.read[c.ID]
	return oona.Commit{Offset: next}, read
}

func (f *following) Committed(c oona.Claim, _ oona.Commit, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.committed[c.ID] = err
}

func (f *following) outcome(claim string) (error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err, made := f.committed[claim]
	return err, made
}

// A topic is deleted and made again, and grows past where a member has read,
// before the member reads again: its reader goes on in the middle of the new log.
// Nothing is committed of that, and all of the new log is handed out.
func TestTopicMadeAgainWhileItIsRead(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		spec := oona.TopicSpec{Name: makeTopic(t, cfg, 1, false), Partitions: 1}
		p := newPublisher(t, cfg, kafka.PublisherOptions{})
		publish(t, p, spec.Name, numbered(0, 3, 0)...)
		o := &following{owner: newOwner(), read: make(map[string]int64), committed: make(map[string]error)}
		s, err := kafka.NewGroupSubscriber(cfg, kafka.GroupOptions{Group: unique("group"), CommitEvery: 100 * time.Millisecond}, o, discard())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		messages := subscribe(t, s, spec.Name)
		take(t, messages, 3)
		first := o.await(t, "open", 1)[0].ID

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
			claim, offset := msg.Metadata[oona.MetaClaim], metaInt(t, msg, oona.MetaOffset)
			if claim != first {
				if offset != wanted || string(msg.Payload) != strconv.FormatInt(100+offset, 10) {
					t.Fatalf("offset %d came with %s, want offset %d", offset, msg.Payload, wanted)
				}
				wanted++
			}
			o.mu.Lock()
			o.read[claim] = offset + 1
			o.mu.Unlock()
			msg.Ack()
		}
		if err, made := o.outcome(first); made && !errors.Is(err, kafka.ErrAnotherTopic) {
			t.Errorf("the first claim committed what it read of the new log: %v", err)
		}
		o.await(t, "close", 1)
		claim := o.await(t, "open", 1)[0]
		eventually(t, "the new log is committed", func() bool { err, made := o.outcome(claim.ID); return made && err == nil })
	})
}
