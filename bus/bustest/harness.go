package bustest

import (
	"cmp"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Harness is a bus with its faults. The function that Run is given may return the same
// bus or another one each time.
type Harness struct {
	Bus bus.Bus
	// UnboundedMetadata says that the bus keeps commits with metadata of any size.
	UnboundedMetadata bool
	Faults            Faults
}

// createTopic creates a topic.
func (h Harness) createTopic(t *testing.T, spec oona.TopicSpec) {
	t.Helper()
	if _, err := h.Bus.Apply(t.Context(), []oona.TopicSpec{spec}); err != nil {
		t.Fatal(err)
	}
}

// newPublisher returns a publisher that waits for a machine under load, unless the
// options say otherwise. The caller closes it.
func (h Harness) newPublisher(t *testing.T, opts bus.PublisherOptions) bus.PinnedPublisher {
	t.Helper()
	opts.DeliveryTimeout = cmp.Or(opts.DeliveryTimeout, 10*time.Minute)
	p, err := h.Bus.Publisher(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h Harness) newMember(t *testing.T, opts bus.MemberOptions, owner bus.Owner) bus.Member {
	t.Helper()
	m, err := h.Bus.Member(opts, owner)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Faults make a bus fail. Tests that need a fault which is nil are skipped.
type Faults struct {
	// DeleteTopic deletes a topic. It may return before every server knows it.
	DeleteTopic func(t *testing.T, topic string)
	// AddPartitions gives a topic n partitions.
	AddPartitions func(t *testing.T, topic string, n int32)
	// Retain sets what a topic keeps.
	Retain func(t *testing.T, topic string, r bus.Retention)
	// Trim deletes the records of a partition below an offset.
	Trim func(t *testing.T, topic string, partition int32, start int64)
	// LoseTail deletes the records of a partition from an offset on, like the election of
	// a server that did not have them.
	LoseTail func(t *testing.T, topic string, partition int32, end int64)
	// Refuse makes the bus refuse the next batch of a partition for good.
	Refuse func(t *testing.T, topic string, partition int32)
	// Falter makes the bus refuse the next n batches of a partition with an error after
	// which the publisher tries again.
	Falter func(t *testing.T, topic string, partition int32, n int)
	// Hold stops a partition from taking messages, until release. waiting returns how
	// many messages from Publish the bus or its client has.
	Hold func(t *testing.T, topic string, partition int32) (waiting func() int, release func())
	// Silence makes the leader of a partition not say where its log ends, until release.
	// The partition may take no messages either.
	Silence func(t *testing.T, topic string, partition int32) (release func())
	// Expel removes a member, the only one, from its group. The member may not know it
	// until notice.
	Expel func(t *testing.T, group string, m bus.Member) (notice func())
}

// need skips the test if the bus does not have a fault.
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

// RunInBubbles runs each test of the suite in a bubble of testing/synctest, where no test
// waits in real time, and goroutines that are left fail the test. It is for a bus that
// waits for nothing outside the process.
func RunInBubbles(t *testing.T, start func(t *testing.T) Harness) {
	run(t, func(t *testing.T, test func(*trial)) {
		synctest.Test(t, func(t *testing.T) { test(&trial{t, start(t)}) })
	})
}

func run(t *testing.T, on func(t *testing.T, test func(*trial))) {
	for _, c := range slices.Concat(publisherCases, readerCases, memberCases, commitCases, adminCases, groupCases) {
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
