package bus_test

import (
	"strings"
	"testing"

	"github.com/morphogenetic/oona/bus"
)

// One partition is not "1 partitions".
func TestNumbersOfPartitions(t *testing.T) {
	for want, got := range map[string]string{
		"has 1 partition and ":  bus.WrongPartitions("t", 1, 4).Fault,
		"has 3 partitions and ": bus.WrongPartitions("t", 3, 1).Fault,
		"has 1 partition and u": bus.UnequalPartitions("t", 1, "u", 4).Fault,
		"t had 1 partition and": (&bus.PartitionsError{Topic: "t", Had: 1, Has: 4}).Error(),
	} {
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q does not begin with %q", got, want)
		}
	}
}
