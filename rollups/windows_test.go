package rollups

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/morphogenetic/oona"
)

// The oracle holds all windows, sorts them and takes the last.
func TestWindowsKeepsTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 6).Draw(t, "limit")
		ends := rapid.SliceOfN(rapid.Int64Range(0, 12), 0, 40).Draw(t, "ends")
		var windows Windows[int]
		var all []ended[int]
		for n, end := range ends {
			later := 0
			for _, e := range all {
				if e.end > oona.Micros(end) {
					later++
				}
			}
			if added := windows.Add(n, oona.Micros(end), limit); added != (later < limit) {
				t.Fatalf("window %d, which ended at %d, was added: %t; %d end later, of %d", n, end, added, later, limit)
			}
			all = append(all, ended[int]{oona.Micros(end), n})
			slices.SortStableFunc(all, func(a, b ended[int]) int { return int(a.end - b.end) })
		}
		want := all[max(0, len(all)-limit):]
		var got []ended[int]
		for end, n := range windows.All() {
			got = append(got, ended[int]{end, n})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		end, n, found := windows.Last()
		if found != (len(want) > 0) || found && (ended[int]{end, n}) != want[len(want)-1] {
			t.Fatalf("the last is %d, which ended at %d (%t); want the last of %v", n, end, found, want)
		}
	})
}

// A full Windows allocates nothing more: its limit bounds its memory.
func TestWindowsIsBounded(t *testing.T) {
	const limit = 64
	var windows Windows[[3]float64]
	end := oona.Micros(0)
	add := func() {
		end++
		windows.Add([3]float64{}, end, limit)
	}
	for range limit {
		add()
	}
	if allocations := testing.AllocsPerRun(1000, add); allocations != 0 || len(windows.windows) != limit || cap(windows.windows) > limit {
		t.Errorf("%v allocations a window; %d windows, room for %d", allocations, len(windows.windows), cap(windows.windows))
	}
}

func BenchmarkWindowsAdd(b *testing.B) {
	var windows Windows[[3]float64]
	b.ReportAllocs()
	for n := range b.N {
		windows.Add([3]float64{}, oona.Micros(n), 64)
	}
}
