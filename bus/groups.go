package bus

import (
	"context"
	"errors"
)

// Groups shows the consumer groups of a bus and changes them from outside. Its errors
// wrap ErrUnreachable if no server of the bus answers.
type Groups interface {
	// Members returns the members of a group, ordered by instance and ID. A group that
	// does not exist has none. A member with an instance is listed until its session times
	// out, even if its process has ended.
	Members(ctx context.Context, group string) ([]GroupMember, error)
	// SetCommits writes commits of partitions of a topic, by the number of the
	// partition. The error wraps ErrHasMembers if the group has members, because they
	// would overwrite the commits.
	SetCommits(ctx context.Context, group, topic string, commits map[int32]Commit) error
	// RemoveMember removes the member with an instance from its group, so that its
	// partitions get another owner before its session times out. The error wraps
	// ErrNoMember if the group has no such member. A process that still runs with the
	// instance joins again.
	RemoveMember(ctx context.Context, group, instance string) error
}

// GroupMember describes a member of a group.
type GroupMember struct {
	ID         string // chosen by the bus
	Instance   string // empty without static membership
	Client     string // its client ID
	Host       string // host of its connection, if the bus knows it
	Partitions map[string][]int32
}

// Groups wraps these errors.
var (
	// ErrHasMembers is returned for a change of a group that is possible only while it
	// has no members.
	ErrHasMembers = errors.New("the consumer group has members")
	// ErrNoMember is returned for a member that the group does not have.
	ErrNoMember = errors.New("the consumer group has no such member")
)
