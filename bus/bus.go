package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Bus is a message bus. It is safe for concurrent use. The caller closes the
// publishers, members and readers that it makes; the Bus itself has nothing to
// close.
type Bus interface {
	Admin
	Groups
	// Publisher returns a connected publisher.
	Publisher(opts PublisherOptions) (PinnedPublisher, error)
	// Member returns a member of a group. Its Subscribe joins the group.
	Member(opts MemberOptions, owner Owner) (Member, error)
	// Reader returns a reader of whole topics. Its Subscribe connects.
	Reader(opts ReaderOptions) (Reader, error)
}

// Admin creates topics and looks into them. Its errors wrap ErrUnreachable if no
// server of the bus answers. If a topic does not exist, all methods except Apply and
// Check return an error that wraps ErrNoTopic.
type Admin interface {
	// Apply creates the topics that do not exist and corrects the settings of the
	// others. It returns when every server knows the topics. It never changes the
	// number of partitions of a topic: numbers that differ from the specs are
	// reported in a *TopicsError after everything else was done. It returns the
	// changes that it has made even if it also returns an error. Each spec needs a
	// number of partitions.
	Apply(ctx context.Context, specs []oona.TopicSpec) ([]TopicChange, error)
	// Check returns a *TopicsError that lists every difference between the topics
	// and the specs. It returns another error if it cannot compare them. A spec
	// without a number of partitions accepts any number.
	Check(ctx context.Context, specs []oona.TopicSpec) error
	// Extents returns the extent of every partition of the topics. The index is
	// the number of the partition.
	Extents(ctx context.Context, topics ...string) (map[string][]Extent, error)
	// Commits returns a group's commit of every partition of a topic. The index is
	// the number of the partition; without a commit the offset is NoOffset.
	Commits(ctx context.Context, group, topic string) ([]Commit, error)
	// Retention returns the limits of the records that a topic keeps.
	Retention(ctx context.Context, topic string) (Retention, error)
	// Read calls take with the records of a range, in order, and returns. The range may
	// exceed the present extent of the partition, but records that are appended after
	// the call are not read. If take returns an error, Read stops and returns an error
	// that wraps it. To follow topics, use a Reader.
	Read(ctx context.Context, topic string, r Range, take func(*message.Message) error) error
}

// Extent is the range of offsets of a partition.
type Extent struct {
	Start int64 // first offset
	End   int64 // offset after the last record
}

// RecordAt returns the record at an offset, or nil if the partition has no such record.
func RecordAt(ctx context.Context, a Admin, topic string, partition int32, offset int64) (found *message.Message, err error) {
	err = a.Read(ctx, topic, Range{Partition: partition, From: offset, End: offset + 1}, func(msg *message.Message) error {
		found = msg
		return nil
	})
	return found, err
}

// LastRecord returns the last record of a partition, or nil if the partition is
// empty. The last offsets may have no records, so LastRecord searches backwards in
// growing steps.
func LastRecord(ctx context.Context, a Admin, topic string, partition int32) (last *message.Message, err error) {
	extents, err := a.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	if partition < 0 || int(partition) >= len(extents[topic]) {
		return nil, fmt.Errorf("read %s: it has no partition %d", topic, partition)
	}
	e := extents[topic][partition]
	for back, end := int64(1), e.End; last == nil && end > e.Start; back *= 2 {
		from := max(e.Start, e.End-back)
		err := a.Read(ctx, topic, Range{Partition: partition, From: from, End: end}, func(msg *message.Message) error {
			last = msg
			return nil
		})
		if err != nil {
			return nil, err
		}
		end = from
	}
	return last, nil
}

// Retention has the limits of the records that a topic keeps. The bus deletes records that
// exceed one of them. 0 means that there is no limit.
type Retention struct {
	Age   time.Duration
	Bytes int64 // maximum size of each partition
}
