package rollups

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/morphogenetic/oona"
)

// window is a rollup of a layer's nth window of ten seconds, which was closed by
// the record at offset and has the ten records before it.
func window(layer oona.LayerID, n int, incarnation oona.Incarnation, offset int64) *oona.Rollup {
	const length = 10_000_000
	r := &oona.Rollup{
		Run: "r", Layer: layer, Start: oona.Micros(n) * length, End: oona.Micros(n+1) * length,
		Trigger:     oona.Trigger{Incarnation: incarnation, Offset: offset},
		FirstOffset: offset - 10, LastOffset: offset - 1, Frames: 5,
	}
	r.Hash = r.ContentHash()
	return r
}

// with is a copy of a rollup that was changed, with its own hash.
func with(r *oona.Rollup, change func(*oona.Rollup)) *oona.Rollup {
	other := *r
	change(&other)
	other.Hash = other.ContentHash()
	return &other
}

// step is a rollup and what a reader must say of it.
type step struct {
	rollup *oona.Rollup
	want   Outcome
	begins bool
}

func read(t *testing.T, steps []step) {
	t.Helper()
	var reader Reader
	for i, s := range steps {
		if got := reader.Read(3, s.rollup); got.Outcome != s.want || got.Begins != s.begins {
			t.Errorf("step %d, trigger %+v: %s, begins %t; want %s, %t", i, s.rollup.Trigger, got.Outcome, got.Begins, s.want, s.begins)
		}
	}
}

func TestWhatIsEmittedAgainIsARepeat(t *testing.T) {
	a, b, c := window("a", 0, 0, 100), window("b", 0, 0, 100), window("a", 1, 0, 200)
	b.Trigger.Index = 1
	read(t, []step{
		{a, New, false}, {b, New, false},
		{a, Repeat, false}, {b, Repeat, false}, // after a restart
		{c, New, false}, {b, Repeat, false},
	})
}

// A reader that begins in the middle has not read what is emitted again.
func TestRepeatOfWhatWasNotRead(t *testing.T) {
	read(t, []step{{window("a", 5, 0, 500), New, false}, {window("a", 4, 0, 400), Repeat, false}, {window("b", 5, 0, 450), Repeat, false}})
}

func TestPartitionsAndGroupsHaveTheirOwnOrder(t *testing.T) {
	var reader Reader
	high, low := window("a", 5, 0, 500), window("b", 6, 0, 50)
	performance := with(low, func(r *oona.Rollup) { r.Group = oona.Performance })
	reader.Read(3, high)
	for name, f := range map[string]Finding{"partition": reader.Read(4, low), "group": reader.Read(3, performance)} {
		if f.Outcome != New || f.Begins || f.Highest != low.Trigger {
			t.Errorf("the first of another %s: %+v", name, f)
		}
	}
}

// Two aggregators fold the same records in two ways, whichever triggers they
// have, and the first stands.
func TestConflict(t *testing.T) {
	first := window("a", 1, 0, 100)
	read(t, []step{
		{first, New, false},
		{with(first, func(r *oona.Rollup) { r.Frames++ }), Conflict, false},
		{with(first, func(r *oona.Rollup) { r.Trigger.Offset = 104; r.LastOffset = 103 }), Conflict, false},
		{with(first, func(r *oona.Rollup) { r.Trigger.Offset = 96; r.LastOffset = 95 }), Conflict, false},
		{window("a", 2, 0, 101), New, false}, // a conflict takes no part in the order
		{first, Repeat, false},
	})
}

// A log that was made again has lower offsets than before.
func TestNewIncarnation(t *testing.T) {
	read(t, []step{
		{window("a", 1, 0, 9_000), New, false},
		{window("a", 2, 7, 20), New, true},
		{window("a", 3, 7, 30), New, false},
		{window("a", 2, 7, 20), Repeat, false},
		{window("a", 1, 0, 9_000), Repeat, false}, // of a worker that has not noticed
		{window("a", 9, 0, 9_999), Behind, false},
		{window("a", 4, 8, 15), New, true},
	})
}

func TestAWindowOfTwoIncarnations(t *testing.T) {
	before := window("a", 1, 0, 9_000)
	restored := with(before, func(r *oona.Rollup) { r.Trigger.Incarnation = 7 }) // its records are the same
	read(t, []step{
		{before, New, false},
		{restored, Repeat, true},
		{window("a", 1, 7, 9_004), Remade, false},
		{window("a", 2, 7, 9_100), New, false},
		{window("a", 1, 8, 20), Remade, true},
		{window("a", 3, 8, 30), New, false},
	})
}

// No record says that the log was made again: that is noticed by what is in it.
func TestLogMadeAgainWithoutAnIncarnation(t *testing.T) {
	read(t, []step{
		{window("a", 1, 0, 9_000), New, false},
		{window("a", 2, 0, 9_010), New, false},
		{window("a", 2, 0, 20), Remade, false},
		{window("a", 3, 0, 30), Behind, false},
		{window("b", 3, 0, 31), Behind, false},
		{window("a", 3, 0, 30), Behind, false}, // it stays lost
		{window("a", 4, 7, 40), New, true},     // until the next incarnation
		{window("a", 5, 7, 50), New, false},
	})
}

// What is forgotten can neither be told as a conflict, nor is it taken twice.
func TestForgottenWindows(t *testing.T) {
	var reader Reader
	for n := range 2*recentWindows + 10 {
		if f := reader.Read(0, window("a", n, 0, int64(n))); f.Outcome != New {
			t.Fatalf("window %d: %s", n, f.Outcome)
		}
	}
	h := reader.partitions[place{oona.Health, 0}]
	if n := len(h.recent.contents); n != recentWindows || len(h.recent.order) != recentWindows {
		t.Errorf("%d windows are remembered, %d in order; want %d", n, len(h.recent.order), recentWindows)
	}
	for n, want := range map[int]Outcome{recentWindows + 9: Repeat, recentWindows + 10: Conflict} {
		other := with(window("a", n, 0, int64(n)), func(r *oona.Rollup) { r.Frames++ })
		if f := reader.Read(0, other); f.Outcome != want {
			t.Errorf("another content of window %d: %s, want %s", n, f.Outcome, want)
		}
	}
}

// Whatever is emitted again, and wherever a log is made again, a reader takes
// each rollup once, in order, and sees each incarnation begin once.
func TestEachRollupIsTakenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var emitted, topic []*oona.Rollup
		incarnation, offset, begun := oona.Incarnation(0), int64(100), 0
		for n := range rapid.IntRange(1, 60).Draw(t, "windows") {
			if rapid.IntRange(0, 9).Draw(t, "made again") == 0 && n > 0 {
				incarnation++
				begun++
				offset = int64(rapid.IntRange(0, 50).Draw(t, "offset"))
			}
			offset += int64(rapid.IntRange(1, 20).Draw(t, "records"))
			r := window(oona.LayerID(fmt.Sprint("enc.", n%3)), n, incarnation, offset)
			emitted, topic = append(emitted, r), append(topic, r)
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				topic = append(topic, emitted[rapid.IntRange(0, n).Draw(t, "from"):]...)
			}
		}
		var reader Reader
		var taken []*oona.Rollup
		begins := 0
		for _, r := range topic {
			f := reader.Read(0, r)
			if f.Begins {
				begins++
			}
			switch f.Outcome {
			case New:
				taken = append(taken, r)
			case Repeat:
			default:
				t.Fatalf("%+v: %s", r.Trigger, f.Outcome)
			}
		}
		if !slices.Equal(taken, emitted) || begins != begun {
			t.Fatalf("%d of %d rollups are taken, %d of %d incarnations begin", len(taken), len(emitted), begins, begun)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var reader Reader
	r := window("a", 0, 0, 0)
	b.ReportAllocs()
	for n := range b.N {
		r.Start, r.End, r.Trigger.Offset = oona.Micros(n), oona.Micros(n+1), int64(n)
		reader.Read(int32(n&3), r)
	}
}
