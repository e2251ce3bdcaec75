package verdict_test

import (
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/verdict/trial"
)

// kept returns copies of the rollups of a group that fold emits.
func kept(t testing.TB, of oona.Group, layer oona.LayerID, fold func(emit func(*oona.Rollup)) error) (rollups []*oona.Rollup) {
	t.Helper()
	err := fold(func(r *oona.Rollup) {
		if r.Group != of || r.Layer != layer {
			return
		}
		c := *r
		c.Metrics = nil
		for _, m := range r.Metrics {
			m.Histogram.Positive = copyOf(m.Histogram.Positive)
			m.Histogram.Negative = copyOf(m.Histogram.Negative)
			m.Worst = append([]oona.SeedValue(nil), m.Worst...)
			c.Metrics = append(c.Metrics, m)
		}
		rollups = append(rollups, &c)
	})
	if err != nil {
		t.Fatal(err)
	}
	return rollups
}

func copyOf(b oona.Buckets) oona.Buckets {
	return oona.Buckets{Indexes: append([]int32(nil), b.Indexes...), Counts: append([]uint64(nil), b.Counts...)}
}

// BenchmarkObserve judges rollups of health: five metrics, 300 seeds, of which a third
// or so are active. They repeat, with new times, so there is no gap.
func BenchmarkObserve(b *testing.B) {
	run := trial.New(trial.OneSeed, trial.Tuning.Seed(trial.OneSeed, 0))
	rollups := kept(b, oona.Health, "enc.0", run.Fold)[:64]
	j, rule := (*verdict.Judge)(nil), builtIn(b).Rule
	length := oona.Micros(10 * time.Second / time.Microsecond)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%1024 == 0 {
			j = verdict.NewJudge(rule)
		}
		r := *rollups[i%len(rollups)]
		r.Start = rollups[0].Start + oona.Micros(i)*length
		r.End = r.Start + length
		j.Observe(&r)
		i++
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "rollups/s")
}

// BenchmarkAt asks for the verdict on a healthy layer.
func BenchmarkAt(b *testing.B) {
	run := trial.New(trial.OneSeed, trial.Tuning.Seed(trial.OneSeed, 0))
	j := verdict.NewJudge(builtIn(b).Rule)
	for _, r := range kept(b, oona.Health, "enc.0", run.Fold)[:64] {
		j.Observe(r)
	}
	b.ReportAllocs()
	for b.Loop() {
		j.At(0)
	}
}
