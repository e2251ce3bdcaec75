package parquet_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/schemas/avro"
)

// walk returns a log of frames whose values are random walks, like those of a training.
func walk(t testing.TB, layers, seeds, frames int, nan bool) *memoryLog {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	names := []string{"gradient_norm", "activation_mean", "activation_std", "dead_fraction", "weight_norm", "reconstruction_loss", "latency_us", "improvement"}
	log := &memoryLog{topic: testTopics(t).SeedMetrics}
	values := make([][][]float32, layers)
	for l := range values {
		values[l] = make([][]float32, len(names))
		for m := range names {
			values[l][m] = make([]float32, seeds)
			for s := range seeds {
				values[l][m][s] = float32(math.Exp(random.NormFloat64() - 4))
			}
		}
	}
	f := &oona.Frame{Run: "Q8BAEA", Producer: "rank.0", Epoch: 1_790_000_000_000_000, Seeds: make([]oona.SeedID, seeds), States: make([]oona.State, seeds)}
	for s := range seeds {
		f.Seeds[s], f.States[s] = oona.SeedID(s), oona.State(s/100%oona.StateCount)
	}
	for i := range frames {
		l := i % layers
		f.Layer, f.Sequence, f.Step = oona.LayerID(fmt.Sprintf("enc.%d", l)), int64(i), int64(i/layers)
		f.ObservedAt = 1_790_000_000_000_000 + oona.Micros(i/layers)*100_000
		f.Metrics = f.Metrics[:0]
		for m, name := range names {
			sent := make([]float32, seeds)
			for s := range seeds {
				v := &values[l][m][s]
				*v *= 1 + 0.02*float32(random.NormFloat64())
				sent[s] = *v
				if nan && s%20 == m {
					sent[s] = float32(math.NaN())
				}
			}
			f.Metrics = append(f.Metrics, oona.Column{Name: name, Values: sent})
		}
		log.add(0, avro.AppendFrame(nil, f))
	}
	return log
}

func processorTime(t testing.TB) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	seconds := func(v syscall.Timeval) float64 { return float64(v.Sec) + float64(v.Usec)/1e6 }
	return seconds(used.Utime) + seconds(used.Stime)
}

func BenchmarkFrames(b *testing.B) {
	for _, tt := range []struct {
		name                  string
		layers, seeds, frames int
		nan                   bool
	}{
		{"measured", 3, 1000, 1500, false},
		{"nulls", 3, 1000, 1500, true},
	} {
		b.Run(tt.name, func(b *testing.B) {
			log := walk(b, tt.layers, tt.seeds, tt.frames, tt.nan)
			rows, size := 0.0, 0.0
			before := processorTime(b)
			for b.Loop() {
				output := &parquet.Output{Dir: filepath.Join(b.TempDir(), "out"), Options: parquet.DefaultOptions()}
				if err := extract(b, log, output); err != nil {
					b.Fatal(err)
				}
				for _, f := range output.Manifest().Topics[0].Partitions[0].Files {
					rows, size = rows+float64(f.Rows), size+float64(f.Bytes)
				}
			}
			b.ReportMetric(rows/(processorTime(b)-before)/1e6, "Mrows/cpu-s")
			b.ReportMetric(size/rows, "B/row")
		})
	}
}
