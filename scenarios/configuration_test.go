package scenarios

import (
	"fmt"
	"os/exec"
	"time"

	"github.com/morphogenetic/oona"
)

// oona runs the command oona, which must succeed, and returns its output.
func (w *world) oona(args ...string) string {
	w.Helper()
	out, err := exec.CommandContext(w.ctx, binaries["oona"], append(args, "--brokers", kafka.String(), "--prefix", w.prefix)...).CombinedOutput()
	if err != nil {
		w.Fatalf("oona %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// Row 16. While trainers send, the windows become longer, from a time within a window on. Of
// two aggregators, one is down while the record is written, and the other is killed while
// windows of both lengths are open. Each frame is in exactly one window, and no window is
// cut.
func configurationChanged(w *world) {
	w.windows.MaxSkew = 2 * time.Second         // the change must be further in the future
	w.windows.AllowedLateness = 2 * time.Second // so that windows of both lengths are open for long
	w.oona(append([]string{"topics", "apply", "--partitions", fmt.Sprint(partitions)}, w.windowFlags()...)...)
	w.startIngest()
	first := w.startWorker("--group-instance", "one")
	second := w.startWorker("--group-instance", "two")
	w.await("both workers to have partitions", func() bool { return len(w.assigned(first)) > 0 && len(w.assigned(second)) > 0 })
	finish := w.train(append(w.pair("run-a", 200),
		trainer{url: w.url(), run: "shuffled", producer: "one", layers: 3, seeds: 4, rate: 50, disorder: 90 * time.Millisecond})...)
	w.pause(3 * time.Second)

	seam := time.Now().Truncate(w.windows.Length).Add(8 * w.windows.Length)
	w.killWorker(first)
	w.oona("windows", "apply", "--yes", "--generation", "2", "--window-length", (w.windows.Length * 3 / 2).String(),
		"--from", seam.Add(-w.windows.Length/2).Format(time.RFC3339Nano))
	first = w.startWorker("--group-instance", "one")
	w.await("both workers to have partitions again", func() bool {
		return len(w.assigned(first)) > 0 && len(w.assigned(second)) > 0 && first.ready() && second.ready()
	})
	w.pause(time.Until(seam.Add(time.Second)))
	killed := oona.MicrosOf(time.Now())
	w.killWorker(second)
	second = w.startWorker("--group-instance", "two")
	w.pause(5 * time.Second)
	finish()
	w.settle()
	replayed := first.metrics()["oona_aggregate_replayed_records_total"] + second.metrics()["oona_aggregate_replayed_records_total"]
	w.stop()
	w.figure("%v records replayed", replayed)
	if replayed == 0 {
		w.Error("nothing was replayed: no worker was killed during a replay")
	}
	r := w.check()
	w.nothingAside(r)
	w.checkSeam(r, oona.MicrosOf(seam), killed)
}

// checkSeam checks that all partitions change from the first generation to the second at the
// seam, that the rollups of both meet there without a gap, and that windows of both were
// open when a worker was killed.
func (w *world) checkSeam(r *result, seam, killed oona.Micros) {
	w.Helper()
	length := oona.Micros(w.windows.Length.Microseconds())
	for p, records := range r.log {
		tilings := w.tilingsOf(records)
		want := []tiling{{length: length, generation: 1}, {from: seam, length: length * 3 / 2, generation: 2}}
		if fmt.Sprint(tilings) != fmt.Sprint(want) {
			w.Errorf("partition %d has windows of %+v, want %+v", p, tilings, want)
		}
	}
	rollups, before, after, open := make(map[int32]int), 0, 0, 0
	appended := func(p int32, offset int64) oona.Micros { return r.log[p][offset].appended }
	for _, got := range r.rollups {
		rollups[got.Generation]++
		lengthened := got.Start >= seam
		if lengthened && (got.Generation != 2 || got.End-got.Start != length*3/2) || !lengthened && (got.Generation != 1 || got.End-got.Start != length) {
			w.Errorf("the rollup of %s/%s at %d, %d from the seam, is of generation %d and ends at %d", got.Run, got.Layer, got.Start, got.Start-seam, got.Generation, got.End)
		}
		switch seam {
		case got.End:
			before++
		case got.Start:
			after++
		default:
			continue
		}
		if appended(got.partition, got.FirstOffset) < killed && killed < appended(got.partition, got.Trigger.Offset) {
			open++
		}
	}
	w.figure("rollups by generation %v, %d end at the seam, %d begin there, windows of %d of them were open when a worker was killed", rollups, before, after, open)
	if open != before+after {
		w.Errorf("windows of %d rollups at the seam of %d were open when a worker was killed: it was too early or too late", open, before+after)
	}
	if before == 0 || before != after {
		w.Errorf("%d rollups end at the seam, %d begin there", before, after)
	}
}
