package simulate

import (
	"fmt"
	"slices"
	"testing"
)

// report describes the failure of a seed, with the shortest schedule that still fails.
func report(seed uint64) string {
	s := newSchedule(seed)
	_, err := run(s)
	short := shrink(s, func(s schedule) bool { _, err := run(s); return err != nil })
	_, shortErr := run(short)
	return fmt.Sprintf("schedule %d: %v\nreplay it with: go test ./internal/simulate -run 'TestSchedules$' -seed=%d\n\n%d of its %d events are enough to fail: %v\n%s",
		seed, err, seed, len(short.events), len(s.events), shortErr, short)
}

// shrinkTries limits how often a schedule is played while it is shortened.
const shrinkTries = 2000

// shrink leaves out events, many at a time and then fewer, while the schedule
// still fails.
func shrink(s schedule, fails func(schedule) bool) schedule {
	tries := shrinkTries
	for size := max(len(s.events)/2, 1); size > 0 && tries > 0; {
		shorter := false
		for at := 0; at < len(s.events) && tries > 0; {
			tries--
			less := s
			less.events = slices.Concat(s.events[:at], s.events[min(at+size, len(s.events)):])
			if fails(less) {
				s, shorter = less, true
				continue
			}
			at += size
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	return s
}

func TestShrink(t *testing.T) {
	for _, want := range [][]int64{{}, {0}, {99}, {3, 4, 57}, {0, 50, 51, 99}} {
		var s schedule
		for n := range int64(100) {
			s.events = append(s.events, event{gap: n})
		}
		short := shrink(s, func(s schedule) bool {
			for _, n := range want {
				if !slices.ContainsFunc(s.events, func(e event) bool { return e.gap == n }) {
					return false
				}
			}
			return true
		})
		var got []int64
		for _, e := range short.events {
			got = append(got, e.gap)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of 100 events, %v are needed and %v are left", want, got)
		}
	}
}

// TestSchedulesRepeat shows that a seed is enough to replay a failure.
func TestSchedulesRepeat(t *testing.T) {
	for seed := range uint64(20) {
		a, b := newSchedule(seed), newSchedule(seed)
		if a.String() != b.String() {
			t.Errorf("seed %d gives two schedules", seed)
		}
		first, _ := run(a)
		second, _ := run(b)
		if first.String() != second.String() {
			t.Errorf("seed %d goes two ways:\n%s\n%s", seed, first, second)
		}
	}
}
