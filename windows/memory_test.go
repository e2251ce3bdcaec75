package windows

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/morphogenetic/oona"
)

// TestMemoryIsBounded sends 100,000 keys, from as many layers or as many runs. The heap must stay below
// the size that follows from the cap on accumulators. Without the cap it does not.
func TestMemoryIsBounded(t *testing.T) {
	const (
		keys     = 100_000
		megabyte = 1 << 20
		limit    = 48 * megabyte // 2,000 accumulators of 11 kB, as many spare ones, and everything else
	)
	capped := withConfig(func(c *Config) { c.MaxAccumulators, c.MaxTimelineAccumulators = 2000, 1000 })
	free := withConfig(func(c *Config) { c.MaxAccumulators, c.MaxTimelineAccumulators, c.MaxLayers = keys, keys, keys })
	for _, c := range []struct {
		name   string
		cfg    Config
		id     func(n int) (oona.RunID, oona.LayerID)
		within bool
	}{
		{"layers", capped, func(n int) (oona.RunID, oona.LayerID) { return "run", oona.LayerID(fmt.Sprint("layer", n)) }, true},
		{"layers of many runs", capped, func(n int) (oona.RunID, oona.LayerID) {
			return oona.RunID(fmt.Sprint("run", n%100)), oona.LayerID(fmt.Sprint("layer", n))
		}, true},
		{"runs", capped, func(n int) (oona.RunID, oona.LayerID) { return oona.RunID(fmt.Sprint("run", n)), "layer" }, true},
		{"layers, without a cap", free, func(n int) (oona.RunID, oona.LayerID) { return "run", oona.LayerID(fmt.Sprint("layer", n)) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := New(c.cfg, Always(benchCatalogue))
			if err != nil {
				t.Fatal(err)
			}
			f := manySeeds()
			before, most, folded := heap(), uint64(0), 0
			for n := range keys {
				f.Run, f.Layer = c.id(n)
				f.Sequence, f.ObservedAt = int64(n), origin+oona.Micros(n)*300 // three windows
				o := e.Fold(Record{Offset: int64(n), AppendedAt: f.ObservedAt, Checksum: uint64(n), Frame: f}, func(*oona.Rollup) {})
				if o.Verdict == Folded {
					folded++
				}
				if n%10_000 == 9_999 {
					if most = max(most, heap()); most > before+limit {
						break
					}
				}
			}
			used := int64(most) - int64(before)
			t.Logf("%d frames folded, %d accumulators open, %.1f MB, %d kB an accumulator", folded, e.openLayers, float64(used)/megabyte, used/1024/int64(max(e.openLayers, 1)))
			if (used < limit) != c.within {
				t.Errorf("the heap grew to %d bytes; within %d: want %t", used, limit, c.within)
			}
			if c.within && e.openLayers > c.cfg.MaxAccumulators {
				t.Errorf("%d accumulators are open, at most %d may be", e.openLayers, c.cfg.MaxAccumulators)
			}
			runtime.KeepAlive(e)
		})
	}
}

// manySeeds returns a frame of 20 seeds and 8 metrics.
func manySeeds() *oona.Frame {
	const seeds = 20
	rng := rand.New(rand.NewPCG(5, 6))
	f := &oona.Frame{Producer: "trainer", Metrics: benchColumns(rng)}
	for i := range f.Metrics {
		f.Metrics[i].Values = f.Metrics[i].Values[:seeds]
	}
	for j := range seeds {
		f.Seeds = append(f.Seeds, oona.SeedID(j))
		f.States = append(f.States, oona.Training)
	}
	return f
}

// heap returns the size of the live objects in bytes.
func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
