package bustest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona/bus"
)

var commitCases = []testCase{
	{"AckCommitsNothing", ackCommitsNothing},
	{"CommitReachesTheNextOwner", commitReachesTheNextOwner},
	{"CommitAtTheEnd", commitAtTheEnd},
	{"TooMuchMetadata", tooMuchMetadata},
	{"RetentionBeyondTheCommit", retentionBeyondTheCommit},
	{"LogThatEndsBeforeTheCommit", logThatEndsBeforeTheCommit},
	{"LogThatReachesTheCommitInAMoment", logThatReachesTheCommitInAMoment},
	{"ZombieIsFenced", zombieIsFenced},
}

func ackCommitsNothing(t *trial) {
	topic, group := t.partitions(2), unique("group")
	t.fill(topic, 0, 50)
	t.fill(topic, 1, 50)
	for range 2 {
		o := newOwner()
		m := t.member(group, o)
		t.take(t.subscribe(m, topic), 100)
		for _, c := range o.await(t, "assigned", 2) {
			if c.Assignment.Committed != (bus.Commit{Offset: bus.NoOffset}) || c.from != 0 {
				t.Errorf("%+v", c.Assignment)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The next owner gets the same commit, byte for byte, also if its metadata changed at the
// same offset or its offset went back.
func commitReachesTheNextOwner(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 10)
	largest := strings.Repeat("m\x00é~", 4096/5) + "m"
	last := bus.Commit{Offset: bus.NoOffset}
	for _, commit := range []bus.Commit{{Offset: 5, Metadata: "first"}, {Offset: 5, Metadata: "second"}, {Offset: 3, Metadata: largest}, {Offset: 4}} {
		o := newOwner()
		m := t.member(group, o)
		messages := t.subscribe(m, topic)
		if c := o.await(t, "assigned", 1)[0]; c.Assignment.Committed != last {
			t.Errorf("committed is %+v, want %+v", c.Assignment.Committed, last)
		}
		msg := t.next(messages)
		if at := t.position(msg); at.Offset != max(0, last.Offset) {
			t.Errorf("begins at %d, want %d", at.Offset, last.Offset)
		}
		msg.Ack()
		if err := o.commit(t.T, commit); err != nil {
			t.Fatal(err)
		}
		last = commit
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The last commit of a member that leaves is made before its assignment ends.
func commitAtTheEnd(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 10)
	o := newOwner()
	m := t.newMember(t.T, bus.MemberOptions{Group: group, CommitEvery: time.Hour}, o)
	t.take(t.subscribe(m, topic), 4)
	o.await(t, "assigned", 1)
	last := bus.Commit{Offset: 4, Metadata: "last"}
	o.due <- last
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := o.outcome(t.T); err != nil {
		t.Fatal(err)
	}
	o.await(t, "revoked", 1)
	next := newOwner()
	t.subscribe(t.member(group, next), topic)
	if c := next.await(t, "assigned", 1)[0]; c.Assignment.Committed != last || c.from != 4 {
		t.Errorf("%+v", c.Assignment)
	}
}

// Metadata that are too large are an error.
func tooMuchMetadata(t *trial) {
	if t.UnboundedMetadata {
		t.Skip("NOT TESTED: this bus takes metadata of any size")
	}
	topic, group := t.partitions(1), unique("group")
	o := newOwner()
	m := t.member(group, o)
	t.subscribe(m, topic)
	o.await(t, "assigned", 1)
	if err := o.commit(t.T, bus.Commit{Offset: 0, Metadata: strings.Repeat("m", 4097)}); err == nil {
		t.Error("4,097 bytes of metadata were taken")
	}
}

// leave makes a member of a group take some messages, commit and leave.
func (t *trial) leave(topic, group string, taken int, c bus.Commit) {
	t.Helper()
	o := newOwner()
	m := t.member(group, o)
	t.take(t.subscribe(m, topic), taken)
	if err := o.commit(t.T, c); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// lost returns the assignment that the next member refuses because its log does not have
// the commit's offset. The owner is asked several times, the last time with Settled.
func (t *trial) lost(topic, group string) *assignment {
	t.Helper()
	o := newOwner()
	o.strict = true
	m := t.member(group, o)
	messages := t.subscribe(m, topic)
	if c := o.await(t, "short", 1)[0]; c.Settled {
		t.Errorf("%+v", c.Assignment)
	}
	c := o.await(t, "lost", 1)[0]
	select {
	case msg := <-messages:
		t.Errorf("%s was handed out", msg.Payload)
	default:
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// If the log begins after the commit, the owner decides.
func retentionBeyondTheCommit(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 10)
	committed := bus.Commit{Offset: 2, Metadata: "before"}
	t.leave(topic, group, 2, committed)
	t.Faults.Trim(t.T, topic, 0, 6)
	if c := t.lost(topic, group); c.Assignment.Committed != committed || c.LogStart != 6 || !c.Settled {
		t.Errorf("%+v", c.Assignment)
	}
	if got := t.take(t.subscribe(t.member(group, newOwner()), topic), 2); !slices.Equal(got, []string{"6", "7"}) {
		t.Errorf("%q", got)
	}
}

// If the log ends before records that the group has read, the owner decides.
func logThatEndsBeforeTheCommit(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 3)
	committed := bus.Commit{Offset: 9, Metadata: "of records that are lost"}
	t.leave(topic, group, 3, committed)
	if c := t.lost(topic, group); c.Assignment.Committed != committed || c.LogEnd != 3 || !c.Settled {
		t.Errorf("%+v", c.Assignment)
	}
	if got := t.take(t.subscribe(t.member(group, newOwner()), topic), 3); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("%q", got)
	}
}

// A log that reaches its old end a moment later is in order.
func logThatReachesTheCommitInAMoment(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 3)
	t.leave(topic, group, 1, bus.Commit{Offset: 1})
	o := newOwner()
	o.readTo, o.strict = 4, true
	messages := t.subscribe(t.member(group, o), topic)
	o.await(t, "short", 1)
	t.publish(t.publisher(bus.PublisherOptions{}), topic, directed("3", 0))
	if got := t.take(messages, 3); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("%q", got)
	}
	if c := o.await(t, "assigned", 1)[0]; c.from != 1 || c.LogEnd != 4 {
		t.Errorf("%+v", c.Assignment)
	}
}

// A commit of a member that was removed from its group is refused, and the commit of the
// next owner is kept.
func zombieIsFenced(t *trial) {
	t.need("Expel", t.Faults.Expel)
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 10)
	zombie, heir := newOwner(), newOwner()
	m := t.member(group, zombie)
	inHand := t.next(t.subscribe(m, topic))
	zombie.await(t, "assigned", 1)
	notice := t.Faults.Expel(t.T, group, m)
	t.consume(t.subscribe(t.member(group, heir), topic))
	heir.await(t, "assigned", 1)
	want := bus.Commit{Offset: 7, Metadata: "of the heir"}
	if err := heir.commit(t.T, want); err != nil {
		t.Fatal(err)
	}
	if err := zombie.commit(t.T, bus.Commit{Offset: 2}); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("%v, want bus.ErrFenced", err)
	}
	inHand.Ack()
	notice()
	zombie.await(t, "revoked", 1)
	heir.await(t, "revoked", 1)
	if c := takeEither(t, zombie, heir); c.Assignment.Committed != want {
		t.Errorf("committed is %+v, want %+v", c.Assignment.Committed, want)
	}
}

// takeEither returns the next assignment of two owners.
func takeEither(t *trial, a, b *owner) *assignment {
	t.Helper()
	select {
	case e := <-a.events:
		return e.of
	case e := <-b.events:
		return e.of
	case <-time.After(longest):
		t.Fatal("the partition was not assigned")
		return nil
	}
}
