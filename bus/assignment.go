package bus

import (
	"context"

	"github.com/morphogenetic/oona"
)

// Assignment is the ownership of a partition by one member of a group. It begins when
// the group assigns the partition and ends when the group revokes it.
type Assignment struct {
	Topic      string
	Partition  int32
	Partitions int32 // number of partitions of the topic
	LogStart   int64 // offset of the first record that the partition still has
	LogEnd     int64 // offset after the last record, at the time of the assignment
	// Settled is false if the leader of the partition was asked only once for the end:
	// a leader that was just elected, or is about to be replaced, may return an end
	// that is too low. See ErrShort.
	Settled bool
	// Committed is the group's commit. Its Offset is NoOffset without a commit.
	Committed Commit
}

// Commit is the progress of a group in a partition.
type Commit struct {
	Offset   int64  // offset from which the next owner must read
	Metadata string // state that the next owner needs besides the offset; at most 4,096 bytes
}

// NoOffset is the offset of a Commit that was never made.
const NoOffset = oona.NoOffset

// Owner decides from which offsets the partitions that are assigned to a member are read.
type Owner interface {
	// Assign returns the first offset to read, and the Consumer of the assignment. It
	// is called once for each assignment, before a record of the partition is read,
	// and concurrently for several partitions. The context ends with the session of
	// the member.
	//
	// If Assign fails, the partition is not read, and Assign is called again after a
	// pause while the partition is assigned. An owner that refuses a partition for
	// good must end the member.
	Assign(ctx context.Context, a Assignment) (from int64, c Consumer, err error)
}

// Consumer receives the events of one assignment. The messages of the assignment come
// from the member's subscription, one at a time, with the Consumer in their Position.
// The methods are called concurrently with the handling of messages, but never
// concurrently with each other.
type Consumer interface {
	// Commit returns what may be committed now, or false if there is nothing new. It
	// is called periodically, and one last time before Revoke.
	Commit() (Commit, bool)
	// Committed reports the result of a commit.
	Committed(c Commit, err error)
	// End reports the offset after the last record of the partition. It is called
	// periodically with the answer of the partition's leader, even while no records
	// are read. While the leader does not answer, it is not called.
	End(offset int64)
	// Revoke ends the assignment. It is called once, after the last message was acked
	// or nacked, or after the handler has kept that message for longer than a rebalance
	// may take.
	Revoke()
}

// Resume returns the offset at which to continue reading, considering only the commit: its
// offset, or the oldest record if there is no commit. If the log does not have the offset of
// the commit, held is false and from is the offset of the oldest record.
func (a Assignment) Resume() (from int64, held bool) {
	at := a.Committed.Offset
	switch {
	case at == NoOffset:
		return a.LogStart, true
	case at < a.LogStart || at > a.LogEnd:
		return a.LogStart, false
	}
	return at, true
}
