package logtime

import (
	"testing"

	"github.com/morphogenetic/oona"
)

func at(offset int64) ReplayPoint { return ReplayPoint{Offset: offset} }

func TestBucketWidth(t *testing.T) {
	for horizon, want := range map[oona.Micros]oona.Micros{1: 1, 4: 1, 5: 2, 60_000_000: 15_000_000} {
		if got := BucketWidth(horizon); got != want {
			t.Errorf("BucketWidth(%d) = %d, want %d", horizon, got, want)
		}
	}
}

func TestIdleBuckets(t *testing.T) {
	var h IdleBuckets
	if h.Begun(0) {
		t.Error("bucket 0 has begun before the first record")
	}
	for bucket := range int64(3) {
		h.Begin(bucket, at(10*bucket))
	}
	h.Begin(5, at(50)) // no record was in buckets 3 and 4; bucket 0 is forgotten
	for bucket, want := range []bool{false, true, true, false, false, true, false} {
		if got := h.Begun(int64(bucket)); got != want {
			t.Errorf("Begun(%d) = %t, want %t", bucket, got, want)
		}
	}
	for _, c := range []struct {
		current   int64
		otherwise int64
		want      int64
	}{
		{5, 99, 10},
		{5, 5, 5}, // what is open may need more
		{6, 99, 20},
		{7, 99, 50},
		{10, 99, 99}, // all buckets are before the horizon
	} {
		if got := h.Earliest(c.current, at(c.otherwise)); got.Offset != c.want {
			t.Errorf("in bucket %d, or else at %d: a replay starts at %d, want %d", c.current, c.otherwise, got.Offset, c.want)
		}
	}
}

// Members and the beginnings of buckets go to the new bucket that holds the last
// instant of the old one that has passed.
func TestRescale(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    Rescaling
		active    []int // of members 0 to 4, where member n was seen in bucket n only
		buckets   []int64
		wantStart int64 // the earliest record within the horizon
	}{
		{"to the same width", Rescaling{From: 10, To: 10, Now: 45}, []int{0, 1, 2, 3, 4}, []int64{0, 1, 2, 3, 4}, 0},
		{"to wider ones", Rescaling{From: 10, To: 20, Now: 45}, []int{0, 1, 2, 3, 4}, []int64{0, 1, 2}, 0},
		{"to narrower ones", Rescaling{From: 10, To: 5, Now: 45}, []int{2, 3, 4}, []int64{5, 7, 9}, 20}, // ends at 29, 39 and 45
		{"to much narrower ones", Rescaling{From: 10, To: 1, Now: 45}, []int{4}, []int64{45}, 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := NewActiveSet()
			var h IdleBuckets
			for bucket := range int64(5) {
				members.Roll(bucket)
				members.Observe(int(bucket), oona.Micros(bucket))
				h.Begin(bucket, at(10*bucket))
			}
			members.Rescale(c.change)
			h.Rescale(c.change)
			if members.Len() != len(c.active) {
				t.Errorf("%d members are active, want %v", members.Len(), c.active)
			}
			for _, number := range c.active {
				if _, active := members.position[number]; !active {
					t.Errorf("member %d is idle", number)
				}
			}
			for _, bucket := range c.buckets {
				if !h.Begun(bucket) {
					t.Errorf("new bucket %d has not begun", bucket)
				}
			}
			if got := h.Earliest(int64(c.change.Now/c.change.To), at(99)); got.Offset != c.wantStart {
				t.Errorf("a replay starts at %d, want %d", got.Offset, c.wantStart)
			}
		})
	}
}
