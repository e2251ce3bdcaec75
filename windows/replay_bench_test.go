package windows

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// BenchmarkReplay folds a log with open windows of 64 layers twice: live, and as a replay after a
// resume.
func BenchmarkReplay(b *testing.B) {
	log := openLog()
	first, err := New(DefaultConfig(), Always(benchCatalogue))
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range log {
		first.Fold(r, nil)
	}
	commit, err := first.Commit()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		open func() (*Engine, error)
		want Verdict
	}{
		{"live", func() (*Engine, error) { return New(DefaultConfig(), Always(benchCatalogue)) }, Folded},
		{"replay", func() (*Engine, error) { return Resume(DefaultConfig(), Always(benchCatalogue), commit) }, Replayed},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				e, err := c.open()
				if err != nil {
					b.Fatal(err)
				}
				for _, r := range log {
					if o := e.Fold(r, nil); o.Verdict != c.want {
						b.Fatal(o)
					}
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(log))*benchSeeds*benchMetrics/b.Elapsed().Seconds()/1e6, "Msamples/s")
		})
	}
}

// openLog returns the records of one window.
func openLog() []Record {
	rng := rand.New(rand.NewPCG(1, 2))
	f := oona.Frame{Run: "run", Producer: "trainer", Metrics: benchColumns(rng)}
	for j := range benchSeeds {
		f.Seeds = append(f.Seeds, oona.SeedID(j))
		f.States = append(f.States, oona.State(rng.IntN(oona.StateCount)))
	}
	var log []Record
	for n := range 1280 {
		g := f
		g.Layer, g.Sequence, g.ObservedAt = oona.LayerID(fmt.Sprint("layer", n%64)), int64(n), origin+oona.Micros(n)
		log = append(log, Record{Offset: int64(n), AppendedAt: g.ObservedAt, Path: "in0", Checksum: uint64(n), Frame: &g})
	}
	return log
}
