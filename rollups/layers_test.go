package rollups

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/morphogenetic/oona"
)

var limits = Limits{Runs: 2, Layers: 3, Total: 5, SilentAfter: time.Minute, EndedAfter: time.Hour}

// at is a rollup of a layer whose window ended at a time.
func at(run oona.RunID, id oona.LayerID, end time.Time) *oona.Rollup {
	return &oona.Rollup{Run: run, Layer: id, End: oona.MicrosOf(end)}
}

func held[V any](l *Layers[V], now time.Time) (names []string) {
	for y := range l.All(now) {
		names = append(names, fmt.Sprintf("%s/%s", y.Run, y.ID))
	}
	slices.Sort(names)
	return names
}

func TestLayersBeyondALimitAreMerged(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := NewLayers[int](limits, nil)
	for _, step := range []struct {
		run    oona.RunID
		id     oona.LayerID
		place  string
		beyond Limit
	}{
		{"a", "1", "a/1", Within}, {"a", "2", "a/2", Within}, {"a", "3", "a/3", Within},
		{"a", "4", "a/other", BeyondLayers},
		{"a", "2", "a/2", Within},
		{"b", "1", "b/1", Within}, {"b", "2", "b/2", Within},
		{"b", "3", "b/other", BeyondLayers}, // five in all
		{"c", "1", "other/other", BeyondRuns},
		{"b", Other, "b/other", BeyondLayers},
		{Other, "1", "other/other", BeyondRuns},
	} {
		y, beyond := l.Of(at(step.run, step.id, now), now)
		if place := fmt.Sprintf("%s/%s", y.Run, y.ID); place != step.place || beyond != step.beyond || y.Merged != (beyond != Within) {
			t.Errorf("%s/%s is in %s, merged %t, beyond %d; want %s, beyond %d", step.run, step.id, place, y.Merged, beyond, step.place, step.beyond)
		}
	}
	if n := l.Len(); n != 8 {
		t.Errorf("%d layers are held, want 5 and 3 merged ones", n)
	}
}

func TestSilentLayersAreDropped(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	var dropped []oona.LayerID
	l := NewLayers(limits, func(y *Layer[int]) { dropped = append(dropped, y.ID) })
	for _, id := range []oona.LayerID{"1", "2", "3"} {
		y, _ := l.Of(at("a", id, began), began)
		y.Value = 7
	}
	later := began.Add(limits.SilentAfter)
	y, _ := l.Of(at("a", "2", later), later)
	if y.Value != 7 || y.Created != began || y.Seen != later || y.End != oona.MicrosOf(later) {
		t.Errorf("layer 2 is %+v", y)
	}
	later = later.Add(limits.SilentAfter / 16) // places are freed only now and then
	if y, beyond := l.Of(at("a", "4", later), later); beyond != Within || y.Merged || y.Value != 0 {
		t.Errorf("a silent layer's place is not free: %+v", y)
	}
	if slices.Sort(dropped); !slices.Equal(dropped, []oona.LayerID{"1", "3"}) {
		t.Errorf("dropped %v", dropped)
	}
	if names := held(l, later); !slices.Equal(names, []string{"a/2", "a/4"}) {
		t.Errorf("held: %v", names)
	}
}

func TestWindowsThatEndedLongAgo(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	old := now.Add(-limits.EndedAfter - time.Second)
	l := NewLayers[int](limits, nil)
	if y, _ := l.Of(at("a", "1", old), now); y != nil {
		t.Errorf("an old window has made a layer: %+v", y)
	}
	fresh, _ := l.Of(at("a", "1", now), now)
	if y, _ := l.Of(at("a", "1", old), now); y != fresh || y.End != oona.MicrosOf(now) {
		t.Errorf("an old window of a layer that is held: %+v", y)
	}
	now = now.Add(limits.EndedAfter + time.Second)
	if y, _ := l.Of(at("a", "1", old), now); y != nil {
		t.Errorf("rollups of old windows keep a layer: %+v", y)
	}

	forEver := limits
	forEver.EndedAfter = 0
	if y, _ := NewLayers[int](forEver, nil).Of(at("a", "1", old), now); y == nil {
		t.Error("without a limit, an old window was refused")
	}
}

// Whatever comes, the limits hold, each layer that is held was seen lately, and
// what was dropped or is held are all layers that were made.
func TestLayersHoldsItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_000_000, 0)
		made, dropped := map[*Layer[int]]bool{}, 0
		l := NewLayers(limits, func(y *Layer[int]) {
			if !made[y] {
				t.Fatalf("dropped twice, or never made: %+v", y)
			}
			delete(made, y)
			dropped++
		})
		for range rapid.IntRange(0, 60).Draw(t, "rollups") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
			run := oona.RunID(fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "run")))
			id := oona.LayerID(fmt.Sprint("l", rapid.IntRange(0, 4).Draw(t, "layer")))
			y, beyond := l.Of(at(run, id, now), now)
			if beyond == Within && (y.Run != run || y.ID != id) || beyond != Within && !y.Merged {
				t.Fatalf("%s/%s is in %s/%s, beyond %d", run, id, y.Run, y.ID, beyond)
			}
			made[y] = true
		}
		runs, layers, total := map[oona.RunID]bool{}, map[oona.RunID]int{}, 0
		for y := range l.All(now) {
			if !made[y] || now.Sub(y.Seen) > limits.SilentAfter {
				t.Fatalf("held at %v: %+v", now, y)
			}
			if y.Run != Other {
				runs[y.Run] = true
			}
			if !y.Merged {
				layers[y.Run]++
				total++
			}
		}
		for run, n := range layers {
			if n > limits.Layers {
				t.Fatalf("%d layers of run %s", n, run)
			}
		}
		if len(runs) > limits.Runs || total > limits.Total || l.Len() != len(made) {
			t.Fatalf("%d runs, %d layers; %d are held, of %d made and not dropped", len(runs), total, l.Len(), len(made))
		}
	})
}

// What a verdict needs of the past fits its budget: 64 windows, at most 2 kB for
// each layer and metric, here of 8 metrics.
func TestHistoryOfTheLargestNetworkFits(t *testing.T) {
	type summary struct {
		Median, Top int32
		Bad         int64
	}
	const windows, metrics = 64, 8
	type kept struct{ windows [2]Windows[*[metrics]summary] }
	l := NewLayers[kept](Limits{Runs: 1, Layers: 4096, Total: 4096, SilentAfter: time.Hour}, nil)
	now := time.Unix(1_000_000, 0)
	bytes := 0
	for n := range 2 * windows {
		for id := range 16 {
			y, _ := l.Of(at("r", oona.LayerID(fmt.Sprint(id)), now.Add(time.Duration(n)*time.Second)), now)
			y.Value.windows[oona.Health].Add(new([metrics]summary), oona.Micros(n), windows)
		}
	}
	for y := range l.All(now) {
		w := &y.Value.windows[oona.Health]
		bytes = cmp.Or(bytes, cap(w.windows)*(16+metrics*16))
		if n := len(w.windows); n != windows {
			t.Errorf("%d windows", n)
		}
	}
	if perMetric := bytes / metrics; perMetric > 2048 {
		t.Errorf("%d bytes for each layer and metric", perMetric)
	}
}
