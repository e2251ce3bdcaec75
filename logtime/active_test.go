package logtime

import (
	"testing"

	"github.com/morphogenetic/oona"
)

// Only what was seen within the horizon counts: the reach of a member goes back when
// an old bucket is dropped, and the member is idle when all buckets are dropped.
func TestActiveSet(t *testing.T) {
	f := NewActiveSet()
	wantLeast := func(members int, least oona.Micros) {
		t.Helper()
		if len(f.members) != members || members > 0 && f.least != least {
			t.Fatalf("bucket %d: %d active members, least %d; want %d, %d", f.bucket, len(f.members), f.least, members, least)
		}
		for number, i := range f.position {
			if f.members[i].number != number {
				t.Fatalf("member %d is taken for %d", f.members[i].number, number)
			}
		}
	}
	if !f.Observe(1, 100) {
		t.Error("the first frame changed nothing")
	}
	if f.Observe(2, 200) {
		t.Error("a faster member changed the least")
	}
	wantLeast(2, 100)
	f.Roll(1)
	f.Observe(1, 50) // before its own latest
	wantLeast(2, 100)
	f.Roll(4)
	wantLeast(2, 100)
	f.Roll(5) // bucket 0 goes, and member 2 with it
	wantLeast(1, 50)
	f.Roll(6)
	wantLeast(0, 0)
	f.Roll(1000)
	f.Observe(2, 7)
	wantLeast(1, 7)
	f.Observe(3, 5)
	f.Observe(4, 6)
	wantLeast(3, 5)
	if !f.Observe(3, 9) {
		t.Error("the slowest member advanced, and the least did not")
	}
	wantLeast(3, 6)
	f.Roll(1004)
	f.Observe(4, 8)
	f.Roll(1005)
	wantLeast(1, 8)
	f.Observe(4, 9)
	f.Roll(2004) // far ahead, where bucket 1005 had its place
	wantLeast(0, 0)
}
