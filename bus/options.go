package bus

import (
	"fmt"
	"regexp"
	"time"

	"github.com/morphogenetic/oona"
)

// PublisherOptions are the options of a publisher.
type PublisherOptions struct {
	// MaxMessageBytes is the largest message that the publisher accepts, with its
	// key, its headers and what the bus adds to it. 0: 1 MiB.
	MaxMessageBytes int
	// BatchBytes is the largest batch of more than one message. It is for a
	// publisher to topics with different limits, if the bus limits batches as it
	// limits messages. 0: as large as the bus finds best.
	BatchBytes int
	// Compression of messages on the bus: "lz4", or "none" or "".
	Compression string
	// DeliveryTimeout is how long a message is tried again while the bus takes
	// nothing of its partition. An attempt without an answer may take some seconds
	// more. 0: 5 seconds.
	DeliveryTimeout time.Duration
	// Pin is a topic whose number of partitions must not change while the publisher
	// exists. After a change nothing is published to it: Publish and Pinned return
	// a *PartitionsError. Empty: no topic.
	Pin string
}

// RollupOptions returns the options of a publisher of rollups. Its caller tries
// again without end and reports failures, so this publisher fails early.
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
	// one ends with ErrInstance. Empty: none.
	Instance string
	// ReadAhead is about how many bytes of a partition are fetched before the
	// owner needs them. 0: some megabytes, for topics with small records.
	ReadAhead int
	// ReadAheadAll is about how many bytes of all partitions together are fetched before
	// the owner needs them, however many there are. Each partition gets an equal part of
	// it, at most ReadAhead. If more is held, because records are larger than that, no
	// partition is fetched until the owner has taken some of it. 0: no such limit.
	ReadAheadAll int
	// CommitEvery is the time between two commits of a partition, and between two
	// questions where the partition ends. 0: a second.
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

// ReaderOptions are the options of a reader.
type ReaderOptions struct {
	// From is where each partition begins: at its first record whose time is not
	// before From, or at its end. Zero: at its oldest record.
	From time.Time
	// ReadAhead is about how many bytes of a partition are fetched before they are
	// needed. 0: some megabytes. Small records take several times as much memory.
	ReadAhead int
	// ReadAheadAll is about how many bytes of all partitions of a topic together are
	// fetched before they are needed. Each partition gets an equal part of it, at most
	// ReadAhead, but at least one batch. 0: no such limit.
	ReadAheadAll int
}
