package export_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// samples are spread over about twelve octaves, as gradient norms are.
func samples(n int) []float64 {
	random := rand.New(rand.NewPCG(3, 4))
	out := make([]float64, n)
	for i := range out {
		out[i] = math.Exp(1.5 * random.NormFloat64())
	}
	return out
}

// layerRollups are a window of one layer with eight metrics of 1,000 seeds.
func layerRollups(layer oona.LayerID) []*oona.Rollup {
	of := func(names ...string) (metrics []oona.MetricSummary) {
		for _, name := range names {
			m := summarize(name, samples(1000)...)
			m.Worst = []oona.SeedValue{{Seed: 1, Value: 9}, {Seed: 2, Value: 8}, {Seed: 3, Value: 7}, {Seed: 4, Value: 6}, {Seed: 5, Value: 5}}
			metrics = append(metrics, m)
		}
		return metrics
	}
	return []*oona.Rollup{
		rollup(oona.Health, "r", layer, of("activation_variance", "dead_fraction", "gradient_norm", "reconstruction_loss", "weight_norm")...),
		rollup(oona.Performance, "r", layer, of("blend", "compute_seconds", "improvement")...),
	}
}

// judged sends ten windows of each of so many layers, which are enough for a verdict.
func (f *fixture) judged(layers int) {
	window := layerRollups("")
	latest := window[0].End
	for i := range 10 {
		for _, r := range window {
			well(r, i)
			r.End = latest - oona.Micros(9-i)*oona.Micros(windowLength/time.Microsecond)
			r.Start = r.End - oona.Micros(windowLength/time.Microsecond)
			for k := range layers {
				r.Layer = oona.LayerID(fmt.Sprintf("layer.%d", k))
				f.sendWindow(r)
			}
		}
	}
}

// BenchmarkCollect is one scrape of 1,000 layers with eight metrics each: the
// collector and the registry, without the encoding.
func BenchmarkCollect(b *testing.B) {
	f := start(b, nil)
	f.judged(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConsume is a rollup of health with five metrics from the message to
// the store.
func BenchmarkConsume(b *testing.B) {
	f := start(b, nil)
	r := layerRollups("enc.0")[0]
	b.ReportAllocs()
	for b.Loop() {
		f.sent, f.sentTo = f.sent[:0], f.sentTo[:0]
		r.Start, r.End = r.End, r.End+10_000
		f.sendWindow(r)
	}
}
