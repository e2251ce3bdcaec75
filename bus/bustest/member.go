package bustest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

var memberCases = []testCase{
	{"MessagesHaveTheirPosition", messagesHaveTheirPosition},
	{"AssignmentDescribesTheLog", assignmentDescribesTheLog},
	{"EndIsTold", endIsTold},
	{"EndIsNotToldWithoutTheLeader", endIsNotToldWithoutTheLeader},
	{"NothingAfterRevoke", nothingAfterRevoke},
	{"ConsumersAreCalledInTurn", consumersAreCalledInTurn},
	{"OneMessageAtATime", oneMessageAtATime},
	{"NackRedelivers", nackRedelivers},
	{"Rebalance", rebalance},
	{"RebalanceLosesNothing", rebalanceLosesNothing},
	{"Standby", standby},
	{"RevokeWaitsForTheMessageInHand", revokeWaitsForTheMessageInHand},
	{"AssignIsAskedAgain", assignIsAskedAgain},
	{"RefusedIsNotRevoked", refusedIsNotRevoked},
	{"SubscribesOnce", subscribesOnce},
	{"TwoMembersWithOneInstance", twoMembersWithOneInstance},
	{"ClosedMember", closedMember},
	{"SubscriptionEndsWithItsContext", subscriptionEndsWithItsContext},
}

func messagesHaveTheirPosition(t *trial) {
	topic := t.partitions(1)
	msg := keyed("a", "key")
	msg.Metadata["header"], msg.Metadata["$offset"] = "1", "from outside"
	t.publish(t.publisher(bus.PublisherOptions{}), topic, msg, unkeyed("b"))
	o := newOwner()
	messages := t.subscribe(t.member(unique("group"), o), topic)
	c := o.await(t, "assigned", 1)[0]
	for i, want := range []struct {
		key     []byte
		headers message.Metadata
	}{
		{[]byte("key"), message.Metadata{"header": "1", "$offset": "from outside"}},
		{nil, message.Metadata{}},
	} {
		msg := t.next(messages)
		if !maps.Equal(msg.Metadata, want.headers) {
			t.Errorf("metadata %q, want %q", msg.Metadata, want.headers)
		}
		at := t.position(msg)
		if at.Topic != topic || at.Partition != 0 || at.Offset != int64(i) || at.Appended == 0 || !slices.Equal(at.Key, want.key) || at.Consumer != c {
			t.Errorf("position %+v", at)
		}
		msg.Ack()
	}
}

// An assignment says where the log begins and ends, before a record is read.
func assignmentDescribesTheLog(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic := t.partitions(3)
	t.fill(topic, 0, 10)
	t.fill(topic, 1, 10)
	t.Faults.Trim(t.T, topic, 0, 4)
	t.Faults.Trim(t.T, topic, 1, 10)
	o := newOwner()
	messages := t.subscribe(t.member(unique("group"), o), topic)
	all := o.await(t, "assigned", 3)
	slices.SortFunc(all, func(a, b *assignment) int { return int(a.Partition - b.Partition) })
	for i, want := range [][2]int64{{4, 10}, {10, 10}, {0, 0}} {
		want := bus.Assignment{Topic: topic, Partition: int32(i), Partitions: 3, LogStart: want[0], LogEnd: want[1], Committed: bus.Commit{Offset: bus.NoOffset}}
		if got := all[i].Assignment; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if got := t.take(messages, 6); got[0] != "4" || got[5] != "9" {
		t.Errorf("%q", got)
	}
}

// A consumer learns where its partition ends although no message is taken.
func endIsTold(t *trial) {
	topic := t.partitions(1)
	o := newOwner()
	t.subscribe(t.member(unique("group"), o), topic)
	c := o.await(t, "assigned", 1)[0]
	p := t.publisher(bus.PublisherOptions{})
	for i := range 5 {
		t.publish(p, topic, directed("x", 0))
		t.eventually("the end is told", func() bool { return c.end.Load() == int64(i+1) })
		if err := o.commit(t.T, bus.Commit{Offset: int64(i)}); err != nil {
			t.Error(err)
		}
	}
}

// While the leader of a partition does not answer, no end is told. Commits are made
// during that time.
func endIsNotToldWithoutTheLeader(t *trial) {
	t.need("Silence", t.Faults.Silence)
	topic := t.partitions(1)
	o := newOwner()
	t.subscribe(t.member(unique("group"), o), topic)
	c := o.await(t, "assigned", 1)[0]
	t.eventually("the end is told", func() bool { return c.end.Load() == 0 })
	release := t.Faults.Silence(t.T, topic, 0)
	told := c.ends.Load()
	for i := range int64(10) { // the leader may have cut off the connection of a commit
		t.eventually("a commit is made", func() bool { return o.commit(t.T, bus.Commit{Offset: i}) == nil })
	}
	if again := c.ends.Load(); again > told+1 { // an answer may have been on its way
		t.Errorf("the end %d was told %d times, and the leader does not answer", c.end.Load(), again-told)
	}
	release()
	t.publish(t.publisher(bus.PublisherOptions{}), topic, directed("x", 0))
	t.eventually("the end is told again", func() bool { return c.end.Load() == 1 })
}

// After Revoke no method of the consumer is called: neither after a rebalance nor after
// the end of the member.
func nothingAfterRevoke(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 1)
	first, second := newOwner(), newOwner()
	m := t.member(group, first)
	t.consume(t.subscribe(m, topic))
	all := first.await(t, "assigned", 1)
	other := t.member(group, second)
	t.consume(t.subscribe(other, topic))
	first.await(t, "revoked", 1)
	t.eventually("both have joined", func() bool { return m.Joined() == nil && other.Joined() == nil })
	time.Sleep(300 * time.Millisecond) // several times what lies between two commits
	if err := errors.Join(m.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	for _, o := range []*owner{first, second} {
		close(o.events)
		for e := range o.events {
			if e.kind == "assigned" {
				all = append(all, e.of)
			}
		}
	}
	for _, c := range all {
		if !c.revoked.Load() || c.late.Load() {
			t.Errorf("%+v: revoked %t, called after that %t", c.Assignment, c.revoked.Load(), c.late.Load())
		}
	}
}

// The methods of a consumer are not called concurrently with each other.
func consumersAreCalledInTurn(t *trial) {
	topic := t.partitions(1)
	o := newOwner()
	o.slow = 30 * time.Millisecond
	m := t.member(unique("group"), o)
	t.subscribe(m, topic)
	c := o.await(t, "assigned", 1)[0]
	for i := range 5 {
		if err := o.commit(t.T, bus.Commit{Offset: int64(i)}); err != nil {
			t.Error(err)
		}
	}
	t.eventually("the end is told", func() bool { return c.end.Load() == 0 })
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	o.await(t, "revoked", 1)
	if c.together.Load() {
		t.Error("two methods of a consumer were called together")
	}
}

// Of each partition one message is handed out at a time, the next one after an ack.
// Partitions do not wait for one another.
func oneMessageAtATime(t *trial) {
	topic := t.partitions(2)
	t.fill(topic, 0, 3)
	t.fill(topic, 1, 3)
	messages := t.subscribe(t.member(unique("group"), newOwner()), topic)
	first, second := t.next(messages), t.next(messages)
	if a, b := t.position(first), t.position(second); a.Partition == b.Partition || a.Offset != 0 || b.Offset != 0 {
		t.Fatalf("%+v and %+v", a, b)
	}
	select {
	case msg := <-messages:
		t.Fatalf("%+v came although two messages are in hand", t.position(msg))
	case <-time.After(100 * time.Millisecond):
	}
	first.Ack()
	third := t.next(messages)
	if at := t.position(third); at.Partition != t.position(first).Partition || at.Offset != 1 {
		t.Errorf("%+v", at)
	}
	second.Ack()
	third.Ack()
}

// A message that is nacked is delivered again, before the next one. A handler that always
// nacks does not keep a partition that is to move to another member.
func nackRedelivers(t *trial) {
	topic, group := t.partitions(1), unique("group")
	t.fill(topic, 0, 3)
	o := newOwner()
	m := t.member(group, o)
	messages := t.subscribe(m, topic)
	t.take(messages, 1)
	for range 12 { // a bus must not give up after a few
		msg := t.next(messages)
		if at := t.position(msg); string(msg.Payload) != "1" || at.Offset != 1 {
			t.Fatalf("%q came at %+v", msg.Payload, at)
		}
		msg.Nack()
	}
	o.await(t, "assigned", 1)
	nacking := make(chan struct{})
	go func() {
		defer close(nacking)
		for msg := range messages {
			msg.Nack()
		}
	}()
	other := newOwner()
	t.consume(t.subscribe(t.member(group, other), topic))
	o.await(t, "revoked", 1) // one of the two has the partition now
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	<-nacking
	other.await(t, "assigned", 1)
}

// Partitions move to a member that joins, and back when a member leaves.
func rebalance(t *trial) {
	const partitions = 4
	topic, group := t.partitions(partitions), unique("group")
	first, second := newOwner(), newOwner()
	m := t.member(group, first)
	t.consume(t.subscribe(m, topic))
	before := first.await(t, "assigned", partitions)
	t.consume(t.subscribe(t.member(group, second), topic))
	for _, c := range first.await(t, "revoked", partitions) {
		if !slices.Contains(before, c) {
			t.Errorf("%+v was revoked, and not assigned", c.Assignment)
		}
	}
	kept := first.await(t, "assigned", partitions/2)
	moved := second.await(t, "assigned", partitions/2)
	var all []int32
	for _, c := range slices.Concat(kept, moved) {
		all = append(all, c.Partition)
	}
	slices.Sort(all)
	if !slices.Equal(all, []int32{0, 1, 2, 3}) {
		t.Errorf("partitions %v are assigned", all)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	first.await(t, "revoked", partitions/2)
	second.await(t, "revoked", partitions/2)
	second.await(t, "assigned", partitions)
}

// While members join and leave, each message is handed out at least once, and in order
// within an assignment.
func rebalanceLosesNothing(t *trial) {
	const partitions, count = 3, 100
	topic, group := t.partitions(partitions), unique("group")
	seen := make(chan bus.Position, 100_000)
	join := func() bus.Member {
		m := t.member(group, newOwner())
		messages := t.subscribe(m, topic)
		done := make(chan struct{})
		t.Cleanup(func() { <-done })
		go func() {
			defer close(done)
			for msg := range messages {
				at, _ := bus.PositionOf(msg)
				seen <- at
				msg.Ack()
			}
		}()
		return m
	}
	join()
	p := t.publisher(bus.PublisherOptions{})
	var other bus.Member
	for i := range count {
		for partition := range int32(partitions) {
			t.publish(p, topic, directed(strconv.Itoa(i), partition))
		}
		switch i {
		case count / 3:
			other = join()
		case 2 * count / 3:
			t.eventually("the other has joined", func() bool { return other.Joined() == nil })
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	next := make(map[bus.Consumer]int64)
	handed := make(map[[2]int64]bool)
	for len(handed) < partitions*count {
		select {
		case at := <-seen:
			if due, before := next[at.Consumer]; before && at.Offset != due {
				t.Fatalf("%+v, want offset %d", at, due)
			}
			next[at.Consumer] = at.Offset + 1
			handed[[2]int64{int64(at.Partition), at.Offset}] = true
		case <-time.After(longest):
			t.Fatalf("%d of %d messages came", len(handed), partitions*count)
		}
	}
}

// A member that gets no partition is in its group, too, and takes over when the other
// member leaves.
func standby(t *trial) {
	topic, group := t.partitions(1), unique("group")
	owners := [2]*owner{newOwner(), newOwner()}
	var members [2]bus.Member
	for i, o := range owners {
		members[i] = t.member(group, o)
		if err := members[i].Joined(); !errors.Is(err, bus.ErrNotJoined) {
			t.Errorf("before it subscribes: %v", err)
		}
		t.consume(t.subscribe(members[i], topic))
		t.eventually("the member has joined", func() bool { return members[i].Joined() == nil })
	}
	t.eventually("both have joined", func() bool { return members[0].Joined() == nil && members[1].Joined() == nil })
	if first, second := owners[0].held.Load(), owners[1].held.Load(); first+second != 1 {
		t.Fatalf("%d and %d partitions are assigned, of one", first, second)
	}
	leaves := 0
	if owners[1].held.Load() == 1 {
		leaves = 1
	}
	if err := members[leaves].Close(); err != nil {
		t.Fatal(err)
	}
	if err := members[leaves].Joined(); !errors.Is(err, bus.ErrNotJoined) {
		t.Errorf("after it has left: %v", err)
	}
	t.eventually("the other takes over", func() bool { return owners[1-leaves].held.Load() == 1 && members[1-leaves].Joined() == nil })
}

// Revoke is called once, after the last message was acked, also if the member closes
// while a handler has a message. The context of the message ends.
func revokeWaitsForTheMessageInHand(t *trial) {
	topic := t.partitions(1)
	t.fill(topic, 0, 10)
	o := newOwner()
	m := t.member(unique("group"), o)
	messages := t.subscribe(m, topic)
	msg := t.next(messages)
	o.await(t, "assigned", 1)
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	<-msg.Context().Done()
	time.Sleep(100 * time.Millisecond) // a bus that does not wait would call Revoke now
	if len(o.events) > 0 || len(closed) > 0 {
		t.Error("revoked while a handler has a message")
	}
	msg.Ack()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(longest):
		t.Fatal("it waits after the ack, too")
	}
	o.await(t, "revoked", 1)
	if extra, open := <-messages; open {
		t.Errorf("%s came after Close", extra.Payload)
	}
	if len(o.events) > 0 {
		t.Errorf("%+v after Revoke", <-o.events)
	}
}

// An owner that fails is asked again after a pause. Nothing is handed out before.
func assignIsAskedAgain(t *trial) {
	topic := t.partitions(1)
	t.fill(topic, 0, 3)
	o := newOwner()
	o.fail.Store(2)
	m := t.member(unique("group"), o)
	messages := t.subscribe(m, topic)
	began := time.Now()
	o.await(t, "refused", 1)
	o.await(t, "refused", 1)
	c := o.await(t, "assigned", 1)[0]
	if took := time.Since(began); took < time.Second {
		t.Errorf("three attempts within %s", took)
	}
	msg := t.next(messages)
	if at := t.position(msg); at.Consumer != c || at.Offset != 0 {
		t.Errorf("%+v", at)
	}
	msg.Ack()
	t.take(messages, 2)
	if err := m.Joined(); err != nil {
		t.Error(err)
	}
}

// An assignment that the owner has not taken is not revoked, and Joined reports it.
func refusedIsNotRevoked(t *trial) {
	topic := t.partitions(1)
	t.fill(topic, 0, 3)
	o := newOwner()
	o.fail.Store(1 << 30)
	m := t.member(unique("group"), o)
	messages := t.subscribe(m, topic)
	o.await(t, "refused", 1)
	t.eventually("Joined reports that a partition is not read", func() bool { return errors.Is(m.Joined(), bus.ErrNotAssigned) })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if msg, open := <-messages; open {
		t.Errorf("%s came of a partition that was refused", msg.Payload)
	}
	close(o.events)
	for e := range o.events {
		if e.kind != "refused" {
			t.Errorf("%s: %+v", e.kind, e.of.Assignment)
		}
	}
}

func subscribesOnce(t *trial) {
	topic := t.partitions(1)
	m := t.member(unique("group"), newOwner())
	t.consume(t.subscribe(m, topic))
	if _, err := m.Subscribe(t.Context(), topic); !errors.Is(err, bus.ErrSubscribed) {
		t.Errorf("%v", err)
	}
}

// Of two members with the same instance, the second one gets the partitions, and the
// first one ends with an error.
func twoMembersWithOneInstance(t *trial) {
	topic, group := t.partitions(1), unique("group")
	var members [2]bus.Member
	var messages [2]<-chan *message.Message
	for i := range members {
		o := newOwner()
		members[i] = t.newMember(t.T, bus.MemberOptions{Group: group, Instance: "one"}, o)
		t.closeAtEnd(members[i])
		messages[i] = t.subscribe(members[i], topic)
		o.await(t, "assigned", 1)
	}
	select {
	case msg, open := <-messages[0]:
		if open {
			t.Fatalf("%s came", msg.Payload)
		}
	case <-time.After(longest):
		t.Fatal("the first one has not ended")
	}
	if err := members[0].Joined(); !errors.Is(err, bus.ErrInstance) {
		t.Errorf("the first: %v", err)
	}
	t.eventually("the second has joined", func() bool { return members[1].Joined() == nil })
	t.fill(topic, 0, 1)
	t.take(messages[1], 1)
}

func closedMember(t *trial) {
	topic := t.partitions(1)
	m := t.newMember(t.T, bus.MemberOptions{Group: unique("group")}, newOwner())
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if _, err := m.Subscribe(t.Context(), topic); err == nil {
		t.Error("a closed member has joined")
	}
}

// A subscription ends with its context, and its assignments are revoked.
func subscriptionEndsWithItsContext(t *trial) {
	topic := t.partitions(2)
	o := newOwner()
	ctx, cancel := context.WithCancel(t.Context())
	messages, err := t.member(unique("group"), o).Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	o.await(t, "assigned", 2)
	cancel()
	o.await(t, "revoked", 2)
	if msg, open := <-messages; open {
		t.Errorf("%s came", msg.Payload)
	}
}
