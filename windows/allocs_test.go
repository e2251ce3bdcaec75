package windows

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/morphogenetic/oona"
)

// TestNoAllocations folds frames into open windows: frames of whole layers and of parts of
// layers, and values that are not finite. Only the set of identities allocates memory when it
// grows, which is less than one allocation per frame.
func TestNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	whole := &oona.Frame{Run: "run", Layer: "whole", Producer: "trainer", ObservedAt: origin, Metrics: benchColumns(rng)}
	for j := range benchSeeds {
		whole.Seeds = append(whole.Seeds, oona.SeedID(j))
		whole.States = append(whole.States, oona.Training)
	}
	for _, c := range whole.Metrics {
		c.Values[rng.IntN(benchSeeds)] = float32(math.NaN())
		c.Values[rng.IntN(benchSeeds)] = float32(math.Inf(1))
	}
	half := func(low, high int) *oona.Frame {
		f := *whole
		f.Layer, f.Seeds, f.States, f.Metrics = "parts", f.Seeds[low:high], f.States[low:high], nil
		for _, c := range whole.Metrics {
			f.Metrics = append(f.Metrics, oona.Column{Name: c.Name, Values: c.Values[low:high]})
		}
		return &f
	}
	frames := []*oona.Frame{whole, half(0, benchSeeds/2), half(benchSeeds/2, benchSeeds)}
	e, err := New(DefaultConfig(), Always(benchCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	offset := int64(0)
	fold := func() {
		for _, f := range frames {
			f.Sequence = offset
			r := Record{Offset: offset, AppendedAt: origin, Path: "in0", Checksum: uint64(offset), Frame: f}
			if o := e.Fold(r, nil); o.Verdict != Folded {
				t.Fatal(o)
			}
			offset++
		}
	}
	for range 100 {
		fold()
	}
	if allocations := testing.AllocsPerRun(1000, fold); allocations != 0 {
		t.Errorf("%g allocations for %d frames", allocations, len(frames))
	}
}

// TestNoAllocationsOverWindows closes and opens windows. Their memory is reused, so only the hash of
// each rollup is allocated.
func TestNoAllocationsOverWindows(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	f := &oona.Frame{Run: "run", Layer: "layer", Producer: "trainer", Metrics: benchColumns(rng)}
	for j := range benchSeeds {
		f.Seeds = append(f.Seeds, oona.SeedID(j))
		f.States = append(f.States, oona.Training)
	}
	e, err := New(DefaultConfig(), Always(benchCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	offset, rollups := int64(0), 0
	second := func() {
		f.Sequence, f.ObservedAt = offset, origin+oona.Micros(offset)*1_000_000
		e.Fold(Record{Offset: offset, AppendedAt: f.ObservedAt, Checksum: uint64(offset), Frame: f}, func(*oona.Rollup) { rollups++ })
		offset++
	}
	for range 200 {
		second()
	}
	before := rollups
	perWindow := testing.AllocsPerRun(100, func() {
		for range 10 {
			second()
		}
	})
	if windows := float64(rollups-before) / 2 / 101; windows != 1 {
		t.Fatalf("%g windows a run, want 1", windows)
	}
	if perWindow > 8 {
		t.Errorf("%g allocations a window of one layer, want at most 8", perWindow)
	}
}

// The engine does not keep the slices of a frame, because decoders reuse them.
func TestFramesAreNotKept(t *testing.T) {
	fold := func(scribble bool) []oona.Rollup {
		p := newPartition(t, DefaultConfig())
		for i := range 30 {
			s := sample{observed: float64(i), seeds: []oona.SeedID{1, 2}, states: []oona.State{oona.Training, oona.Culled}, metrics: []oona.Column{{Name: "loss", Values: []float32{float32(i), 2}}}}
			r := s.record(p.offset)
			p.folded(p.fold(float64(i), r))
			if scribble {
				r.Frame.Seeds[0], r.Frame.States[0], r.Frame.Metrics[0].Values[0] = 99, oona.Dormant, -1
				r.Frame.Metrics[0].Name = "other"
			}
		}
		return p.rollups
	}
	clean, scribbled := fold(false), fold(true)
	if len(clean) == 0 || fmt.Sprint(clean) != fmt.Sprint(scribbled) {
		t.Errorf("with frames overwritten after they were folded:\n got %+v\nwant %+v", scribbled, clean)
	}
}

// Memory that is kept for later windows has no content of the closed window.
func TestSpareMemoryIsEmpty(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 1, layer: "a"}))
	p.folded(p.append(0, sample{observed: 1, layer: "b"}))
	p.folded(p.append(20, sample{observed: 20}))
	if len(p.engine.spareWindows) != 1 || len(p.engine.spareAccumulators) != 2 {
		t.Fatalf("%d windows and %d accumulators are spare, want 1 and 2", len(p.engine.spareWindows), len(p.engine.spareAccumulators))
	}
	if w := p.engine.spareWindows[0]; w.timeline != nil || len(w.layers) != 0 || len(w.folded) != 0 {
		t.Errorf("a spare window holds %+v", w)
	}
}

// After a burst of layers and windows, no more memory is kept than is in use.
func TestSpareMemoryIsBounded(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{observed: 0, producer: "slow", path: "spool"}))
	for i := range 500 {
		p.folded(p.append(0, sample{observed: float64(i % 50), layer: string(rune('A' + i%26)), producer: "slow"}))
	}
	for i := range 3000 {
		p.folded(p.append(0, sample{observed: 55, layer: strconv.Itoa(i), producer: "slow"}))
	}
	p.folded(p.append(0, sample{observed: 59, producer: "slow", path: "spool"}))
	for s := range 100 {
		p.tick(float64(s))
	}
	if e := p.engine; e.open != 0 || e.openLayers != 0 || len(e.spareAccumulators) != leastSpareAccumulators || len(e.spareWindows) != leastSpareWindows {
		t.Errorf("%d windows, %d layers are open; %d windows and %d accumulators are spare", e.open, e.openLayers, len(e.spareWindows), len(e.spareAccumulators))
	}
}
