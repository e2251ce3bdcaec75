package bus

import (
	"errors"
	"fmt"
)

// Every bus wraps these errors.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the connection to the bus is closed")
	// ErrUnreachable is returned if no server of the bus answers.
	ErrUnreachable = errors.New("the bus cannot be reached")
	// ErrUntrusted is returned if the certificate of a server of the bus is not
	// accepted, or no secure connection can be agreed on.
	ErrUntrusted = errors.New("the connection to the bus cannot be trusted")
	// ErrCredentials is returned if the bus does not accept the credentials of the client.
	ErrCredentials = errors.New("the bus does not accept the credentials")
	// ErrDenied is returned if the client does not have the permission for a request.
	ErrDenied = errors.New("the bus denies access")
	// ErrNoTopic is returned for a topic that the bus does not know.
	ErrNoTopic = errors.New("the topic does not exist")
	// ErrTooLarge is returned for a message that is larger than the topic accepts.
	ErrTooLarge = errors.New("the message is too large for the topic")
	// ErrPartitions is returned if the number of partitions of a topic has changed
	// since its publisher was made. See PublisherOptions.Pin.
	ErrPartitions = errors.New("the topic's number of partitions has changed")
	// ErrShort is returned by Owner.Assign if the log ends before records that were
	// read, and the assignment is not Settled. The bus asks for the end again, for
	// some seconds.
	ErrShort = errors.New("the log seems to end before records that were read")
)

// Errors of members.
var (
	// ErrNotJoined is returned while a member is not in a generation of its group.
	// Then it has no partitions.
	ErrNotJoined = errors.New("not a member of the consumer group now: joining, a rebalance is under way, or the group's coordinator cannot be reached")
	// ErrForeignAssignment is returned after the group has assigned partitions of a topic
	// that the member does not read, and from then on. The reason is that a member with
	// the same instance has read that topic: a member of another installation, or this
	// one before its topic was changed.
	ErrForeignAssignment = errors.New("the consumer group has assigned partitions of a topic that this member does not read")
	// ErrNotAssigned is returned while the owner has not taken all partitions that
	// the group has assigned.
	ErrNotAssigned = errors.New("partitions that the consumer group has assigned are not read yet")
	// ErrInstance is returned after another member with the same instance has joined the
	// group, and from then on.
	ErrInstance = errors.New("another worker has joined the consumer group with the same instance")
	// ErrSubscribed is returned by the second Subscribe of a member.
	ErrSubscribed = errors.New("the member has subscribed already; use another member")
	// ErrAnotherTopic is returned for a commit if the topic was deleted and created
	// again after the partition was assigned.
	ErrAnotherTopic = errors.New("the topic was deleted and created again")
	// ErrFenced is returned for a commit of a partition that now belongs to another
	// member.
	ErrFenced = errors.New("the partition belongs to another member of the group")
)

// PublishError lists the messages of a call that were not acknowledged. They may
// have been written all the same. All others are on the bus, except after ErrTooLarge
// because of PublisherOptions.MaxMessageBytes: that is noticed before anything is sent,
// so no message of the call is on the bus, and only the first one that is too large is
// listed.
type PublishError struct {
	Topic    string
	Messages int // number of messages in the call
	Failed   []FailedMessage
}

// FailedMessage is a message that was not acknowledged.
type FailedMessage struct {
	Index int // index of the message in the call
	Err   error
}

func (e *PublishError) Error() string {
	first := e.Failed[0]
	return fmt.Sprintf("%d of %d messages for %s were not acknowledged; the first is message %d: %v", len(e.Failed), e.Messages, e.Topic, first.Index, first.Err)
}

// Unwrap returns the different causes.
func (e *PublishError) Unwrap() (causes []error) {
	seen := make(map[string]bool)
	for _, f := range e.Failed {
		if text := f.Err.Error(); !seen[text] {
			seen[text] = true
			causes = append(causes, f.Err)
		}
	}
	return causes
}

// PartitionsError is ErrPartitions with the two numbers. New records of a key would go to
// another partition than the earlier ones, so nothing more is published to the topic.
type PartitionsError struct {
	Topic    string
	Had, Has int32
}

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("%s had %s and has %d: keys would move to other partitions", e.Topic, partitions(int(e.Had)), e.Has)
}

// Is reports whether target is ErrPartitions.
func (e *PartitionsError) Is(target error) bool { return target == ErrPartitions }
