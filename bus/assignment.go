package bus

import (
	"context"

	"github.com/morphogenetic/oona"
)

// Assignment is one ownership of a partition by a member of a group, from when
// it is assigned until it is revoked.
type Assignment struct {
	Topic      string
	Partition  int32
	Partitions int32 // that the topic has
	LogStart   int64 // first offset that the partition still holds
	LogEnd     int64 // offset after its last record, when it was assigned
	// Settled is false where the leader of the partition was asked for the end
	// only once: one that was just elected, or is about to be deposed, may name
	// an end that is too low. See ErrShort.
	Settled bool
	// Committed is what the group has committed; its Offset is NoOffset where
	// that is nothing.
	Committed Commit
}

// Commit is how far a group has come in a partition: the offset from which the
// next owner must read, and what it must know besides.
type Commit struct {
	Offset   int64
	Metadata string // at most 4,096 bytes
}

// NoOffset is the offset of a Commit that was never made.
const NoOffset = oona.NoOffset

// Owner decides where the partitions are read from that a member was assigned.
type Owner interface {
	// Assign returns the first offset to read, and who is told of what becomes
	// of the assignment. It is called once for each assignment, before anything
	// of the partition is read; of several partitions, concurrently. The context
	// ends with the member's session.
	//
	// If it fails, nothing of the partition is read, and it is called again after
	// a pause for as long as the partition is assigned. An owner that refuses the
	// partition for good has to end the member by itself.
	Assign(ctx context.Context, a Assignment) (from int64, c Consumer, err error)
}

// Consumer owns an assignment. The messages of the assignment come from the
// member's subscription, one at a time, with the Consumer in their Position; its
// methods are called beside, and not concurrently with each other.
type Consumer interface {
	// Commit is asked from time to time, and a last time before Revoke, what may
	// be committed; false: nothing that is new.
	Commit() (Commit, bool)
	// Committed tells what became of a commit.
	Committed(c Commit, err error)
	// End tells the offset after the partition's last record, as the leader of
	// the partition says from time to time, whether or not records come from
	// there. It is not called while the leader does not answer.
	End(offset int64)
	// Revoke ends the assignment, once: its last message was acked or nacked, or
	// the handler has kept it for longer than a rebalance may take.
	Revoke()
}

// Resume returns where reading goes on by the commit alone: at its offset, or at
// the oldest record where there is no commit. If the log does not hold the offset,
// held is false, and from is that of the oldest record.
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
