package bus

import "github.com/ThreeDotsLabs/watermill/message"

// Member is a member of a group. The members of a group share the partitions of a
// topic. A member hands out one message of a partition at a time, and the next one
// after that was acked. A message that was nacked is delivered again while the
// assignment lasts. Acks commit nothing: the Consumer of the assignment returns what is
// committed.
//
// Subscribe joins the group. It can be called once, and it fails if the bus does not
// answer.
type Member interface {
	message.Subscriber
	// Joined returns nil while the member is in its group and its owner has taken all
	// partitions that were assigned to it, if any. Otherwise it returns the reason.
	// After ErrInstance and ErrForeignAssignment the messages end.
	Joined() error
}

// Reader reads all partitions of a topic, without a group. It hands out one message of
// a partition at a time. If servers of the bus fail or move, it continues with the next
// record, or with the oldest one if the log no longer has that.
type Reader interface {
	message.Subscriber
	// Ranges returns for each partition of a topic where reading began and where the
	// log ended at that time. It returns nil before Subscribe has returned.
	Ranges(topic string) []Range
}

// Range is a part of a partition.
type Range struct {
	Partition int32
	From      int64 // first offset
	End       int64 // offset after the last one
}
