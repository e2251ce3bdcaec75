package windows_test

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// A trainer reports every second. Its first window of ten seconds closes when
// the watermark, one second behind the trainer, has passed the window's end and
// the five seconds of allowed lateness.
func Example() {
	catalogue := func(name string) oona.Metric {
		return oona.Metric{Name: name, Group: oona.Health, Direction: oona.LowerIsBetter}
	}
	engine, err := windows.New(windows.DefaultConfig(), windows.Always(catalogue))
	if err != nil {
		fmt.Println(err)
		return
	}
	const second = 1_000_000
	start := oona.Micros(1_700_000_000 * second)
	for i := range int64(17) {
		at := start + oona.Micros(i*second)
		frame := &oona.Frame{
			Run: "digits", Layer: "encoder.1", Producer: "trainer-0", Sequence: i, ObservedAt: at, Step: 100 * i,
			Seeds:   []oona.SeedID{0, 1},
			States:  []oona.State{oona.Training, oona.Dormant},
			Metrics: []oona.Column{{Name: "reconstruction_loss", Values: []float32{1 / float32(i+1), 0}}},
		}
		record := windows.Record{Offset: i, AppendedAt: at, Path: "ingest-0", Checksum: uint64(i), Frame: frame}
		outcome := engine.Fold(record, func(r *oona.Rollup) {
			fmt.Printf("record %d closed %s of %s: %d frames", r.Trigger.Offset, r.Group, r.Layer, r.Frames)
			if r.Group == oona.Health {
				fmt.Printf(", %d of %d seeds active, worst seed %d", r.Seeds.Active, r.Seeds.Seen, r.Metrics[0].Worst[0].Seed)
			} else {
				fmt.Printf(", %.0f steps a second", r.Rates.StepsPerSecond)
			}
			fmt.Println()
		})
		if outcome.Verdict != windows.Folded {
			fmt.Println(outcome.Verdict, outcome.Detail)
		}
	}
	// Output:
	// record 16 closed health of encoder.1: 10 frames, 1 of 2 seeds active, worst seed 0
	// record 16 closed performance of encoder.1: 10 frames, 100 steps a second
}

// A worker commits and ends. Another one continues from its commit: it reads the log from
// the safe offset on, and emits only the windows that the first one had not emitted.
func ExampleResume() {
	catalogue := func(name string) oona.Metric { return oona.Metric{Name: name} }
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var log []windows.Record
	for second := range 35 {
		at := oona.MicrosOf(start.Add(time.Duration(second) * time.Second))
		log = append(log, windows.Record{
			Offset:     int64(second),
			AppendedAt: at,
			Frame: &oona.Frame{
				Run: "run-7", Layer: "encoder.2", Producer: "trainer", Sequence: int64(second), ObservedAt: at,
				Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
			},
		})
	}
	emit := func(r *oona.Rollup) {
		if r.Group == oona.Health {
			fmt.Println("window of", r.Start.Time().Format(time.TimeOnly), "with", r.Frames, "frames")
		}
	}
	first, err := windows.New(windows.DefaultConfig(), windows.Always(catalogue))
	if err != nil {
		panic(err)
	}
	for _, r := range log[:20] {
		first.Fold(r, emit)
	}
	commit, err := first.Commit()
	if err != nil {
		panic(err)
	}
	second, err := windows.Resume(windows.DefaultConfig(), windows.Always(catalogue), commit)
	if err != nil {
		panic(err)
	}
	fmt.Println("resumed from offset", commit.Offset)
	for _, r := range log[commit.Offset:] {
		second.Fold(r, emit)
	}
	// Output:
	// window of 12:00:00 with 10 frames
	// resumed from offset 0
	// window of 12:00:10 with 10 frames
}
