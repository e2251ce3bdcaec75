package bus

import "github.com/ThreeDotsLabs/watermill/message"

// Member is a member of a group. The members of a group share the partitions of a
// topic. A member hands out one message of a partition at a time, and the next one after
// an ack. A message that was nacked is delivered again, as long as the assignment lasts.
// An ack does not commit anything: the Consumer of the assignment returns the commits.
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
	// Ranges returns, for each partition of a topic, the offset at which reading began and
	// the end of the log at that time. It returns nil before Subscribe has returned.
	Ranges(topic string) []Range
}

// Range is a part of a partition.
type Range struct {
	Partition int32
	From      int64 // first offset
	End       int64 // offset after the last one
}
