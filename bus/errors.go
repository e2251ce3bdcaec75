package bus

import "errors"

// Errors that every bus wraps in its own.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the connection to the bus was closed")
	// ErrUnreachable is returned when no server of the bus answers.
	ErrUnreachable = errors.New("the bus cannot be reached")
	// ErrNoTopic is returned for a topic that does not exist, as far as the bus
	// knows.
	ErrNoTopic = errors.New("the topic does not exist")
	// ErrTooLarge is returned for a message that the topic will never take
	// because of its size.
	ErrTooLarge = errors.New("the message is too large for the topic")
	// ErrPartitions is returned once a topic has another number of partitions than
	// when its publisher was made: keys have moved, and nothing is published.
	ErrPartitions = errors.New("the topic's number of partitions has changed")
	// ErrShort is what Owner.Assign returns, wrapped, where the log ends before
	// what was read of it and the assignment is not Settled: the end is asked for
	// again, for some seconds.
	ErrShort = errors.New("the log seems to end before what was read of it")
)

// Why a member does not read.
var (
	// ErrNotJoined is returned while a member is in no generation of its group: no
	// partition can be assigned to it.
	ErrNotJoined = errors.New("not a member of the consumer group now: joining, a rebalance is under way, or the group's coordinator cannot be reached")
	// ErrNotAssigned is returned while the owner has not taken all partitions that
	// the group has assigned.
	ErrNotAssigned = errors.New("partitions that the consumer group has assigned are not read yet")
	// ErrInstance is returned for good once another member has joined the group
	// under this one's instance.
	ErrInstance = errors.New("another worker has joined the consumer group with the same --group-instance; give each its own")
	// ErrSubscribed is returned when a member would join its group twice.
	ErrSubscribed = errors.New("the member has joined its group already; make another one, with a --group-instance of its own")
	// ErrAnotherTopic is returned for a commit of a topic that was deleted and made
	// again under its name since the partition was assigned.
	ErrAnotherTopic = errors.New("the topic was deleted and made again")
	// ErrFenced is returned for a commit of a partition that is another member's
	// by now.
	ErrFenced = errors.New("the partition belongs to another member of the group")
)
