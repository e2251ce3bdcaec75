package windows

import (
	"fmt"
	"testing"

	"github.com/morphogenetic/oona"
)

// The slot numbers must never change. Another hash would change which producers share a slot, and so
// which frames are late.
func TestSlotNumbersAreForEver(t *testing.T) {
	for _, c := range []struct {
		producer oona.ProducerID
		path     string
		want     int
	}{
		{"", "", 1531},
		{"trainer-0", "ingest-0", 1379},
		{"trainer-1", "ingest-0", 3283},
		{"trainer-0", "ingest-1", 3155},
	} {
		if got := slotNumber(c.producer, c.path, 4096); got != c.want {
			t.Errorf("slot of %q on %q is %d, want %d", c.producer, c.path, got, c.want)
		}
	}
}

func TestSlotNumbersSpread(t *testing.T) {
	const slots, pairs = 4096, 40_960
	var load [slots]int
	for i := range pairs {
		n := slotNumber(oona.ProducerID(fmt.Sprintf("trainer-%d", i/4)), fmt.Sprintf("ingest-%d", i%4), slots)
		load[n]++
	}
	// A slot has 10 pairs on average. With a good hash, none has 40.
	for n, count := range load {
		if count >= 40 {
			t.Errorf("slot %d has %d of %d pairs", n, count, pairs)
		}
	}
	if slotNumber("ab", "c", 1<<30) == slotNumber("a", "bc", 1<<30) {
		t.Error("where the producer ends and the path begins makes no difference")
	}
}
