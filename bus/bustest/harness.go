package bustest

import (
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Harness makes what a test needs of a bus. Each call of what Run is given may return
// another bus, or the same. What it makes, the test closes.
type Harness struct {
	// CreateTopic makes a topic, and returns once it can be used.
	CreateTopic func(t *testing.T, spec oona.TopicSpec)
	Publisher   func(t *testing.T, opts PublisherOptions) bus.Publisher
	Member      func(t *testing.T, opts MemberOptions, owner bus.Owner) bus.Member
	// Reader begins at records of a time, or at the oldest where that is zero.
	Reader func(t *testing.T, from time.Time) bus.Reader
	// Ends returns the offset after the last record of each partition of a topic.
	Ends func(t *testing.T, topic string) []int64
	// Failed returns the indexes of the messages that an error of Publish names.
	Failed func(err error) []int
	// UnboundedMetadata: the bus keeps commits with metadata of any size.
	UnboundedMetadata bool
	Faults            Faults
}

// PublisherOptions are those of every bus.
type PublisherOptions struct {
	MaxMessageBytes int           // 0: the bus's own
	Wait            time.Duration // how long messages are tried again; 0: a minute
}

// MemberOptions are those of every bus.
type MemberOptions struct {
	Group       string
	Instance    string
	CommitEvery time.Duration
}

// Faults are what a bus can be made to do. A test that needs one which is nil is
// skipped.
type Faults struct {
	// Trim deletes the records of a partition below an offset.
	Trim func(t *testing.T, topic string, partition int32, start int64)
	// Refuse has the bus refuse once, for good, the next batch of a partition.
	Refuse func(t *testing.T, topic string, partition int32)
	// Falter has the bus refuse the next n batches of a partition with a failure that
	// passes, so that the publisher tries again.
	Falter func(t *testing.T, topic string, partition int32, n int)
	// Hold keeps a partition from taking messages. waiting returns how many of them
	// the bus, or its client, has taken from Publish.
	Hold func(t *testing.T, topic string, partition int32) (waiting func() int, release func())
	// Expel removes a member from its group without its knowing, until notice.
	Expel func(t *testing.T, m bus.Member) (notice func())
}

// need skips the test where the bus cannot be made to do what it needs.
func (t *trial) need(name string, fault any) {
	t.Helper()
	if reflect.ValueOf(fault).IsNil() {
		t.Skipf("NOT TESTED: this bus has no fault %s", name)
	}
}

// Run runs the suite. Its tests run in parallel.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	run(t, func(t *testing.T, test func(*trial)) { test(&trial{t, start(t)}) })
}

// RunInBubbles runs each test of the suite in a bubble of testing/synctest, where time
// passes by itself and a goroutine that is left behind fails the test. It is for a bus
// that waits for nothing outside the process.
func RunInBubbles(t *testing.T, start func(t *testing.T) Harness) {
	run(t, func(t *testing.T, test func(*trial)) {
		synctest.Test(t, func(t *testing.T) { test(&trial{t, start(t)}) })
	})
}

func run(t *testing.T, on func(t *testing.T, test func(*trial))) {
	for _, c := range slices.Concat(publisherCases, readerCases, memberCases, commitCases) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			on(t, c.test)
		})
	}
}

// testCase is a test of the suite.
type testCase struct {
	name string
	test func(t *trial)
}
