package windows

import (
	"fmt"
	"testing"

	"github.com/morphogenetic/oona"
)

// The numbers are part of what a log means: another hash would change which
// producers share a slot, and so which frames are late.
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
	// 10 a slot on average: with a good hash, none has 40.
	for n, count := range load {
		if count >= 40 {
			t.Errorf("slot %d has %d of %d pairs", n, count, pairs)
		}
	}
	if slotNumber("ab", "c", 1<<30) == slotNumber("a", "bc", 1<<30) {
		t.Error("where the producer ends and the path begins makes no difference")
	}
}

// Of a slot counts what it saw within the horizon: its reach goes back when an
// old bucket goes, and it is idle when all have gone.
func TestFrontierHorizon(t *testing.T) {
	f := frontier{position: map[int]int{}}
	wantLeast := func(slots int, least oona.Micros) {
		t.Helper()
		if len(f.slots) != slots || slots > 0 && f.least != least {
			t.Fatalf("bucket %d: %d active slots, least %d; want %d, %d", f.bucket, len(f.slots), f.least, slots, least)
		}
		for number, i := range f.position {
			if f.slots[i].number != number {
				t.Fatalf("slot %d is taken for %d", f.slots[i].number, number)
			}
		}
	}
	if !f.observe(1, 100) {
		t.Error("the first frame changed nothing")
	}
	if f.observe(2, 200) {
		t.Error("a faster slot changed the least")
	}
	wantLeast(2, 100)
	f.roll(1)
	f.observe(1, 50) // behind itself
	wantLeast(2, 100)
	f.roll(4)
	wantLeast(2, 100)
	f.roll(5) // bucket 0 goes, and slot 2 with it
	wantLeast(1, 50)
	f.roll(6)
	wantLeast(0, 0)
	f.roll(1000)
	f.observe(2, 7)
	wantLeast(1, 7)
	f.observe(3, 5)
	f.observe(4, 6)
	wantLeast(3, 5)
	if !f.observe(3, 9) {
		t.Error("the slowest went on, and the least did not")
	}
	wantLeast(3, 6)
	f.roll(1004)
	f.observe(4, 8)
	f.roll(1005)
	wantLeast(1, 8)
	f.observe(4, 9)
	f.roll(2004) // far ahead, where bucket 1005 had its place
	wantLeast(0, 0)
}
