package bus

import (
	"fmt"
	"regexp"
	"time"

	"github.com/morphogenetic/oona"
)

// PublisherOptions are the options of a publisher.
type PublisherOptions struct {
	// MaxMessageBytes is the maximum size of a message, including its key, its headers and
	// the overhead of the bus. 0 means 1 MiB.
	MaxMessageBytes int
	// BatchBytes is the maximum size of a batch of more than one message. It is for
	// publishers to topics with different limits, if the bus applies the limit of a topic
	// to batches, too. With 0, the bus chooses the size.
	BatchBytes int
	// Compression is the compression of messages on the bus: "lz4", "none", or "" for none.
	Compression string
	// DeliveryTimeout is for how long the publisher tries to send a message again while the
	// bus accepts nothing for its partition. If an attempt gets no answer, it may take some
	// seconds longer. 0 means 5 seconds.
	DeliveryTimeout time.Duration
	// Pin is a topic whose number of partitions must not change while the publisher
	// exists. After a change nothing is published to it: Publish and Pinned return
	// a *PartitionsError. If it is empty, no topic is pinned.
	Pin string
}

// RollupOptions returns the options of a publisher of rollups. The caller repeats failed
// calls without limit and reports the failures, so this publisher fails early.
func RollupOptions() PublisherOptions {
	return PublisherOptions{DeliveryTimeout: 3 * time.Second, Compression: "lz4", MaxMessageBytes: oona.MaxRollupBytes}
}

// Validate returns an *oona.FieldError for the first option that is wrong. Its
// Field is the name of the option.
func (o PublisherOptions) Validate() error {
	switch {
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > 0 && o.MaxMessageBytes < 1<<10 || o.MaxMessageBytes > 64<<20:
		return &oona.FieldError{Field: "MaxMessageBytes", Reason: fmt.Sprintf("is %d; give 1024 to %d", o.MaxMessageBytes, 64<<20)}
	case o.BatchBytes < 0:
		return &oona.FieldError{Field: "BatchBytes", Reason: fmt.Sprintf("is %d; give 0 or more", o.BatchBytes)}
	case o.Compression != "" && o.Compression != "none" && o.Compression != "lz4":
		return &oona.FieldError{Field: "Compression", Reason: fmt.Sprintf("is %q; give none or lz4", o.Compression)}
	case o.DeliveryTimeout < 0:
		return &oona.FieldError{Field: "DeliveryTimeout", Reason: fmt.Sprintf("is %s; give 0 or more", o.DeliveryTimeout)}
	}
	return nil
}

// MemberOptions are the options of a member of a group.
type MemberOptions struct {
	Group string
	// Instance is a name of the member that stays the same after a restart: a
	// member that comes back in time gets its partitions without a rebalance. It
	// must be unique in the group: of two members with the same instance, the first
	// one ends with ErrInstance. If it is empty, the member has no instance.
	Instance string
	// ReadAhead is the approximate number of bytes of a partition that are fetched before
	// the owner needs them. 0 means some megabytes, which is for topics with small records.
	ReadAhead int
	// ReadAheadAll is like ReadAhead, for all partitions together, however many there are.
	// Each partition gets an equal part of it, but at most ReadAhead. If more bytes are in
	// memory, because records are larger than that, nothing is fetched until the owner has
	// taken some of them. 0 means no such limit.
	ReadAheadAll int
	// CommitEvery is the time between two commits of a partition, and between two requests
	// for the end of the partition. 0 means a second.
	CommitEvery time.Duration
}

// MaxReadAhead is the largest ReadAhead.
const MaxReadAhead = 8 << 20

var instanceForm = regexp.MustCompile(`^[0-9A-Za-z._-]{1,249}$`)

// Validate returns an *oona.FieldError for the first option that is wrong. Its
// Field is the name of the option.
func (o MemberOptions) Validate() error {
	switch {
	case o.Group == "":
		return &oona.FieldError{Field: "Group", Reason: "is empty; name the consumer group"}
	case o.Instance != "" && !instanceForm.MatchString(o.Instance) || o.Instance == "." || o.Instance == "..":
		return &oona.FieldError{Field: "Instance", Reason: fmt.Sprintf("is %q; give at most 249 letters, digits, '.', '_' and '-'", o.Instance)}
	case o.ReadAhead < 0 || o.ReadAhead > MaxReadAhead:
		return &oona.FieldError{Field: "ReadAhead", Reason: fmt.Sprintf("is %d; give 0 to %d", o.ReadAhead, MaxReadAhead)}
	case o.ReadAheadAll < 0:
		return &oona.FieldError{Field: "ReadAheadAll", Reason: fmt.Sprintf("is %d; give 0 or more", o.ReadAheadAll)}
	}
	return nil
}

// DefaultAddedEvery is how often workers look for partitions that were added to a topic.
const DefaultAddedEvery = 30 * time.Second

// ReaderOptions are the options of a reader.
type ReaderOptions struct {
	// From is the time at which reading begins: each partition is read from its first
	// record whose time is not before From, or from its end if there is none. If it is
	// zero, partitions are read from their oldest records.
	From time.Time
	// ReadAhead is the approximate number of bytes of a partition that are fetched before
	// they are needed. 0 means some megabytes. Small records need several times as much
	// memory.
	ReadAhead int
	// ReadAheadAll is like ReadAhead, for all partitions of a topic together. Each
	// partition gets an equal part of it: at most ReadAhead, and at least one batch. 0
	// means no such limit.
	ReadAheadAll int
	// AddedEvery is how often a reader looks for partitions that were added to a topic. It
	// reads them, too, from From on. 0 means never.
	AddedEvery time.Duration
}
