package aggregate_test

import (
	"errors"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// FuzzCommittedMetadata checks that any metadata of the group's commit is either from an
// aggregator, or is refused with a reason and without a new incarnation.
func FuzzCommittedMetadata(f *testing.F) {
	for _, text := range []string{"", "oona1", "oona1 4", "oona1 4 ", "oona1 4 AAAA", "oona1 0 AAAA", "oona1 -4 AAAA", "oona1 99999999999 AAAA", "oona2 4 AAAA", "sarama", "\xff\x00"} {
		f.Add(int64(7), text)
	}
	fixture := &fixture{out: newOutputs(f)}
	f.Fuzz(func(t *testing.T, offset int64, text string) {
		if offset < 0 {
			return // without a commit there is no metadata
		}
		stage := newStage(t, fixture, nil)
		_, _, err := stage.Assign(t.Context(), bus.Assignment{Topic: "t", Partition: 3, Partitions: 4, LogEnd: offset + 1, Settled: true, Committed: bus.Commit{Offset: offset, Metadata: text}})
		if err == nil {
			t.Fatalf("%q is accepted", text) // its checksum has 32 bits
		}
		if !errors.Is(err, aggregate.ErrCommitText) && !errors.Is(err, aggregate.ErrPartitions) && !errors.Is(err, windows.ErrCommit) {
			t.Errorf("%q: the error is %v", text, err)
		}
	})
}
