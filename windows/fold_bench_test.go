package windows

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// The shape of a frame in the benchmarks: 1,000 seeds by 8 metrics.
const (
	benchSeeds   = 1000
	benchMetrics = 8
)

// benchColumns makes values like those of trainers: positive values over some octaves, ratios with
// zeros, and a metric with values of both signs.
func benchColumns(rng *rand.Rand) []oona.Column {
	names := []string{"activation_variance", "blend", "compute_seconds", "dead_fraction", "gradient_norm", "improvement", "reconstruction_loss", "weight_norm"}
	columns := make([]oona.Column, benchMetrics)
	for i, name := range names {
		columns[i] = oona.Column{Name: name, Values: make([]float32, benchSeeds)}
		for j := range columns[i].Values {
			columns[i].Values[j] = benchValue(rng, name)
		}
	}
	return columns
}

func benchValue(rng *rand.Rand, name string) float32 {
	switch name {
	case "blend":
		return rng.Float32()
	case "dead_fraction":
		if rng.IntN(10) > 0 {
			return 0
		}
		return rng.Float32()
	case "improvement":
		return float32(rng.NormFloat64())
	}
	return float32(rng.ExpFloat64())
}

// benchCatalogue is the catalogue of the metrics in benchColumns.
func benchCatalogue(name string) oona.Metric {
	m := oona.Metric{Name: name, Group: oona.Health}
	switch name {
	case "reconstruction_loss", "dead_fraction":
		m.Direction = oona.LowerIsBetter
	case "compute_seconds":
		m.Group, m.Direction = oona.Performance, oona.LowerIsBetter
	case "improvement":
		m.Group, m.Direction = oona.Performance, oona.HigherIsBetter
	case "blend":
		m.Group = oona.Performance
	}
	return m
}

// BenchmarkFold folds frames of many layers in turn. Each layer has 20 frames in a window, so that
// windows open and close as in practice.
func BenchmarkFold(b *testing.B) {
	for _, layers := range []int{1, 1024} {
		b.Run(fmt.Sprintf("layers=%d", layers), func(b *testing.B) { benchmarkFold(b, layers, benchSeeds) })
	}
}

// BenchmarkManyLayers folds frames of 100 seeds. With 10,000 layers, the memory of the open
// windows is much larger than the processor's caches.
func BenchmarkManyLayers(b *testing.B) {
	for _, layers := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("layers=%d", layers), func(b *testing.B) { benchmarkFold(b, layers, 100) })
	}
}

func benchmarkFold(b *testing.B, layers, seeds int) {
	const framesPerWindow = 20
	cfg := DefaultConfig()
	cfg.MaxLayers = max(cfg.MaxLayers, layers)
	engine, err := New(cfg, Always(benchCatalogue))
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	frames := make([]oona.Frame, 16) // more than fits into a first-level cache
	for i := range frames {
		frames[i] = oona.Frame{Run: "run", Producer: "trainer", Metrics: benchColumns(rng)}
		for m := range frames[i].Metrics {
			frames[i].Metrics[m].Values = frames[i].Metrics[m].Values[:seeds]
		}
		for j := range seeds {
			frames[i].Seeds = append(frames[i].Seeds, oona.SeedID(j))
			frames[i].States = append(frames[i].States, oona.State(rng.IntN(oona.StateCount)))
		}
	}
	names := make([]oona.LayerID, layers)
	for i := range names {
		names[i] = oona.LayerID(fmt.Sprintf("encoder.%04d", i))
	}
	step := oona.Micros(cfg.Length.Microseconds()) / oona.Micros(framesPerWindow*layers)
	at := oona.Micros(1_700_000_000_000_000)
	rollups := 0
	emit := func(*oona.Rollup) { rollups++ }
	fold := func(n int) {
		f := &frames[n%len(frames)]
		f.Layer = names[n%layers]
		f.Sequence, f.Step, f.ObservedAt = int64(n), int64(n/layers), at
		if o := engine.Fold(Record{Offset: int64(n), AppendedAt: at + 1000, Path: "ingest-0", Checksum: uint64(n), Frame: f}, emit); o.Verdict != Folded {
			b.Fatal(o)
		}
		at += step
	}
	warm := 3 * framesPerWindow * layers // until memory is reused
	if b.N == 1 {
		warm = 0
	}
	for n := range warm {
		fold(n)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		fold(warm + n)
	}
	b.ReportMetric(float64(b.N)*float64(seeds*benchMetrics)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
