package verdict_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/windows"
)

// recorded returns the frames of the recorded training run.
func recorded(t testing.TB) (frames []*oona.Frame) {
	t.Helper()
	text, err := os.ReadFile("../testdata/digits.avro")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := avro.NewRecordingReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := reader.Next()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Frame != nil {
			frames = append(frames, entry.Frame)
		}
	}
}

// fold makes the rollups of frames, in the order of their triggers. They are valid until
// emit returns.
func fold(t testing.TB, frames []*oona.Frame, length time.Duration, reducer int32, known *catalogue.Catalogue, emit func(*oona.Rollup)) {
	t.Helper()
	cfg := windows.DefaultConfig()
	cfg.Length, cfg.Reducer = length, reducer
	engine, err := windows.New(cfg, windows.Always(known.Metric))
	if err != nil {
		t.Fatal(err)
	}
	last := oona.Micros(0)
	fold := func(offset int64, at oona.Micros, f *oona.Frame) {
		out := engine.Fold(windows.Record{Offset: offset, AppendedAt: at, Path: "ingest", Checksum: uint64(offset), Frame: f}, emit)
		if f != nil && out.Verdict != windows.Folded {
			t.Fatalf("frame %d is %v: %v", offset, out.Verdict, out.Detail)
		}
	}
	for i, f := range frames {
		last = max(last, f.ObservedAt)
		fold(int64(i), last, f)
	}
	for i := range 200 { // ticks, until every producer is idle and all windows have closed
		last += 1e6
		fold(int64(len(frames)+i), last, nil)
	}
}

func builtIn(t testing.TB) *catalogue.Catalogue {
	t.Helper()
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// The recorded training run has no known fault, and no verdict reports one.
func TestRecordedRunIsHealthy(t *testing.T) {
	frames, known := recorded(t), builtIn(t)
	for _, length := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		for reducer := int32(1); reducer <= windows.Reducer; reducer++ {
			run, judged := verdict.NewRun(known.Rule), 0
			fold(t, frames, length, reducer, known, func(r *oona.Rollup) {
				run.Observe(r)
				if r.Group == oona.Performance {
					return
				}
				judged++
				if v, _ := run.At(r.Layer, run.Now()); v.Level != verdict.OK {
					t.Errorf("windows of %v, reducer %d: %s at %v is %v: %v", length, reducer, r.Layer, r.Start-frames[0].ObservedAt, v.Level, v.Reasons)
				}
			})
			t.Logf("windows of %v, reducer %d: %d windows of %d layers", length, reducer, judged, run.Len())
		}
	}
}

// TestGoldenVerdicts compares the verdicts on the recorded run with faults to the verdicts that were
// computed on amd64. They must be the same on every machine.
func TestGoldenVerdicts(t *testing.T) {
	const want = "daefed790a17ea92"
	frames, known := recorded(t), builtIn(t)
	frames = inject(frames, "enc.0", 2e6, 16, 30, times("gradient_norm", by(100)))
	frames = inject(frames, "enc.1", 2e6, 20, 24, set(constant(1), func(i int) bool { return i%5 < 3 }, "dead_fraction"))
	frames = inject(frames, "enc.2", 2e6, 24, 40, times("activation_variance", by(.001)))
	run, sum, standing := verdict.NewRun(known.Rule), sha256.New(), 0
	fold(t, frames, 2*time.Second, 2, known, func(r *oona.Rollup) {
		run.Observe(r)
		v, _ := run.At(r.Layer, run.Now())
		standing += len(v.Reasons)
		fmt.Fprintln(sum, r.Layer, r.Group, r.End, v.Level, v.Since, v.Learning, v.Reasons)
		for m := range run.Judge(r.Layer).Metrics() {
			fmt.Fprintln(sum, m.Name, math.Float64bits(m.Median), math.Float64bits(m.Low), math.Float64bits(m.High), m.BestAge)
		}
	})
	if got := hex.EncodeToString(sum.Sum(nil)[:8]); got != want || standing < 40 {
		t.Errorf("the verdicts have the hash %s, want %s; %d reasons", got, want, standing)
	}
}
