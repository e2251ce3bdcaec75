package bus

import "github.com/ThreeDotsLabs/watermill/message"

// Member is a member of a group, which shares the partitions of a topic with the
// others. Of each partition it hands out one message at a time, and the next one
// once that was acked; one that is nacked comes again, for as long as the
// assignment lasts. To ack a message commits nothing: the Consumer of the
// assignment says what is committed.
//
// Subscribe joins the group, once, and fails when the bus does not answer then.
type Member interface {
	message.Subscriber
	// Joined returns nil while this is a member of its group and its owner has
	// taken all partitions that it was assigned, of which there may be none; else
	// why not. Once it is ErrInstance, the messages end.
	Joined() error
}

// Reader reads all partitions of a topic by itself, without a group. Of each
// partition it hands out one message at a time. When servers of the bus fail or
// move it goes on at the next record, and where the log no longer has that, at the
// oldest.
type Reader interface {
	message.Subscriber
	// Ranges says of each partition of a topic where reading began, and where the
	// log ended then: what has been read up to End is caught up. It is known once
	// Subscribe has returned, and nil before.
	Ranges(topic string) []Range
}

// Range is a part of a partition's log.
type Range struct {
	Partition int32
	From      int64 // first offset
	End       int64 // offset after the last
}
