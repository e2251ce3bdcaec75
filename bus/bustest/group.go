package bustest

import (
	"errors"
	"slices"

	"github.com/morphogenetic/oona/bus"
)

var groupCases = []testCase{
	{"Members", members},
	{"SetCommits", setCommits},
	{"RemoveMember", removeMember},
	{"TwoTopics", twoTopics},
	{"InstanceThatReadAnotherTopic", instanceThatReadAnotherTopic},
}

// static returns a member with an instance.
func (t *trial) static(group, instance string, o bus.Owner) bus.Member {
	t.Helper()
	m := t.newMember(t.T, bus.MemberOptions{Group: group, Instance: instance}, o)
	t.closeAtEnd(m)
	return m
}

// owned returns the instances of a group's members, and how many partitions they have.
func (t *trial) owned(group, topic string) (instances []string, partitions int) {
	t.Helper()
	all, err := t.Bus.Members(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		instances = append(instances, m.Instance)
		partitions += len(m.Partitions[topic])
	}
	return instances, partitions
}

func members(t *trial) {
	topic, group := t.partitions(3), unique("group")
	if instances, _ := t.owned(group, topic); len(instances) != 0 {
		t.Errorf("a group that does not exist has the members %q", instances)
	}
	a, b := newOwner(), newOwner()
	t.consume(t.subscribe(t.static(group, "b", b), topic))
	t.consume(t.subscribe(t.static(group, "a", a), topic))
	t.eventually("both have partitions", func() bool {
		instances, partitions := t.owned(group, topic)
		return slices.Equal(instances, []string{"a", "b"}) && partitions == 3
	})
}

// Commits can be set while the group has no members, and the next owner gets them.
func setCommits(t *trial) {
	topic, group := t.partitions(2), unique("group")
	t.fill(topic, 0, 5)
	t.fill(topic, 1, 5)
	want := map[int32]bus.Commit{0: {Offset: 3, Metadata: "three"}, 1: {Offset: 5}}
	if err := t.Bus.SetCommits(t.Context(), group, topic, want); err != nil {
		t.Fatal(err)
	}
	back := bus.Commit{Offset: 2, Metadata: "back"}
	if err := t.Bus.SetCommits(t.Context(), group, topic, map[int32]bus.Commit{0: back}); err != nil {
		t.Fatal(err)
	}
	if all, err := t.Bus.Commits(t.Context(), group, topic); err != nil || !slices.Equal(all, []bus.Commit{back, want[1]}) {
		t.Errorf("%+v, %v", all, err)
	}
	o := newOwner()
	m := t.member(group, o)
	t.consume(t.subscribe(m, topic))
	for _, c := range o.await(t, "assigned", 2) {
		if c.Partition == 0 && c.Assignment.Committed != back || c.Partition == 1 && c.Assignment.Committed != want[1] {
			t.Errorf("%+v", c.Assignment)
		}
	}
	if err := t.Bus.SetCommits(t.Context(), group, topic, map[int32]bus.Commit{0: {Offset: 0}}); !errors.Is(err, bus.ErrHasMembers) {
		t.Errorf("%v, want ErrHasMembers", err)
	}
	if all, err := t.Bus.Commits(t.Context(), group, topic); err != nil || all[0] != back {
		t.Errorf("%+v, %v", all, err)
	}
}

// A member that has gone is removed, and one that runs joins again.
func removeMember(t *trial) {
	topic, group := t.partitions(2), unique("group")
	for _, instance := range []string{"nobody", ""} {
		if err := t.Bus.RemoveMember(t.Context(), group, instance); !errors.Is(err, bus.ErrNoMember) {
			t.Errorf("remove %q: %v, want ErrNoMember", instance, err)
		}
	}
	gone := newOwner()
	m := t.newMember(t.T, bus.MemberOptions{Group: group, Instance: "gone"}, gone)
	t.consume(t.subscribe(m, topic))
	gone.await(t, "assigned", 2)
	stays := newOwner()
	t.consume(t.subscribe(t.static(group, "stays", stays), topic))
	stays.await(t, "assigned", 1)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := t.Bus.RemoveMember(t.Context(), group, "gone"); err != nil && !errors.Is(err, bus.ErrNoMember) { // the bus may let it leave
		t.Fatal(err)
	}
	if instances, _ := t.owned(group, topic); slices.Contains(instances, "gone") {
		t.Errorf("the members are %q", instances)
	}
	t.eventually("the other member has both partitions", func() bool {
		_, partitions := t.owned(group, topic)
		return stays.held.Load() == 2 && partitions == 2
	})
	if err := t.Bus.RemoveMember(t.Context(), group, "stays"); err != nil {
		t.Fatal(err)
	}
	t.eventually("the member joins again", func() bool {
		instances, partitions := t.owned(group, topic)
		return slices.Equal(instances, []string{"stays"}) && partitions == 2 && stays.held.Load() == 2
	})
}

// The members of a group may read different topics. They are members of one group all the
// same: instances are unique in it, and commits of all topics are theirs.
func twoTopics(t *trial) {
	one, other, group := t.partitions(2), t.partitions(2), unique("group")
	a, b := newOwner(), newOwner()
	t.consume(t.subscribe(t.static(group, "a", a), one))
	a.await(t, "assigned", 2)
	if err := t.Bus.SetCommits(t.Context(), group, other, map[int32]bus.Commit{0: {Offset: 0}}); !errors.Is(err, bus.ErrHasMembers) {
		t.Errorf("%v, want ErrHasMembers", err)
	}
	reader := t.static(group, "b", b)
	t.consume(t.subscribe(reader, other))
	t.eventually("both have the partitions of their topics", func() bool {
		_, ofOne := t.owned(group, one)
		instances, ofOther := t.owned(group, other)
		return slices.Equal(instances, []string{"a", "b"}) && ofOne == 2 && ofOther == 2 && a.held.Load() == 2 && b.held.Load() == 2
	})
	t.consume(t.subscribe(t.static(group, "b", newOwner()), one))
	t.eventually("another member with the instance takes its place", func() bool {
		return errors.Is(reader.Joined(), bus.ErrInstance)
	})
}

// A member takes the instance of one that reads another topic. It may get the partitions of
// its own topic, or end, but it never gets those of the other topic.
func instanceThatReadAnotherTopic(t *trial) {
	one, other, group := t.partitions(2), t.partitions(2), unique("group")
	t.fill(one, 0, 3)
	t.fill(one, 1, 3)
	before := newOwner()
	t.consume(t.subscribe(t.static(group, "i", before), one))
	before.await(t, "assigned", 2)
	o := newOwner()
	m := t.static(group, "i", o)
	t.consume(t.subscribe(m, other))
	t.eventually("it has its own partitions, or has ended", func() bool {
		return o.held.Load() == 2 || errors.Is(m.Joined(), bus.ErrForeignAssignment)
	})
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for len(o.events) > 0 {
		if e := <-o.events; e.of.Topic != other {
			t.Errorf("%s: %s, and it reads %s", e.kind, e.of.Topic, other)
		}
	}
}
