package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/morphogenetic/oona"
)

// older is the last commit of Oona without incarnations, settings topic and reducer 2.
const older = "553527a"

// buildOlder builds the programs of the older commit. It skips the scenario if the repository
// does not have that commit.
func (w *world) buildOlder() map[string]string {
	w.Helper()
	if err := exec.Command("git", "cat-file", "-e", older+"^{commit}").Run(); err != nil {
		w.Skipf("SKIPPED, UPGRADE NOT TESTED: the repository does not have commit %s (%v); in a shallow clone, git fetch --unshallow brings it", older, err)
	}
	dir := w.TempDir()
	source, packed := filepath.Join(dir, "source"), filepath.Join(dir, "source.tar")
	if err := os.Mkdir(source, 0o700); err != nil {
		w.Fatal(err)
	}
	for _, command := range [][]string{{"git", "-C", "..", "archive", "--output", packed, older}, {"tar", "-xf", packed, "-C", source}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			w.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	built, err := build(dir, source, "ingest", "aggregate", "exporter")
	if err != nil {
		w.Fatal(err)
	}
	return built
}

// Row 21. Older programs begin a log, newer ones continue with it, and then older ones again,
// each time with open windows and workers of both versions in the group. No new kind of record
// is written, so all rollups are as the older programs write them. Then a new kind of record
// is written: the older aggregator ends and says so, and the newer one continues.
func upgradeAndRollback(w *world) {
	old := w.buildOlder()
	w.windows.MaxSkew = 2 * time.Second // the record must be further in the future
	reader := w.startReaders("of the newer version")
	w.startIngestOf(old)
	oldest := w.launchAggregator(old["aggregate"])
	oldest.awaitReady(w.T, w.ctx)
	newer := w.handOver("run-a", oldest, func() *process { return w.launchWorker() })
	w.ingest.terminate(w.T)
	w.oona("topics", "apply", "--partitions", fmt.Sprint(partitions), "--group", w.prefix)
	w.oona("windows", "show", "--restore", "--group", w.prefix)

	w.startIngest()
	back := w.handOver("run-b", newer, func() *process { return w.launchAggregator(old["aggregate"]) })
	before := w.check()
	w.nothingAside(before)
	w.checkOlder(before, old)

	w.crossOver(back, old)
	w.stop()
	after := w.check()
	w.nothingAside(after)
	reader.stop(w, 0, after)
	byReducer := make(map[int32]int)
	for _, rollup := range after.rollups {
		byReducer[rollup.Reducer]++
	}
	w.figure("rollups by reducer %v", byReducer)
	if byReducer[1] <= len(before.rollups) || byReducer[2] == 0 {
		w.Errorf("rollups by reducer: %v, and %d before the record", byReducer, len(before.rollups))
	}
}

// startIngestOf starts the ingest of other binaries, and waits until it accepts frames.
func (w *world) startIngestOf(binaries map[string]string) {
	w.Helper()
	w.ingest = launchBinary(w.T, binaries["ingest"], nil, append(w.common(), "--listen", "127.0.0.1:0")...)
	w.ingest.awaitReady(w.T, w.ctx)
}

// handOver plays a training in which a second aggregator joins. The first one is killed when
// it has published rollups without a commit, and the second continues alone.
func (w *world) handOver(run oona.RunID, from *process, launch func() *process) (to *process) {
	w.Helper()
	finish := w.train(w.pair(run, 200)...)
	w.pause(2 * time.Second)
	to = launch()
	w.await("aggregators of both versions to share the partitions", func() bool {
		return len(w.assigned(from)) > 0 && len(w.assigned(to)) > 0 && from.ready() && to.ready()
	})
	w.awaitUncommitted(from)
	w.killWorker(from)
	w.await("the partitions to have one owner", func() bool { return len(w.assigned(to)) == partitions && to.ready() })
	w.pause(2 * time.Second)
	finish()
	w.settle()
	if to.metrics()["oona_aggregate_replayed_records_total"] == 0 {
		w.Errorf("run %s: nothing was replayed by the other version: no window was open", run)
	}
	return to
}

// checkOlder checks that the topics have no kinds of records and no versions of rollups that
// the older programs do not know, and that an older exporter accepts all rollups.
func (w *world) checkOlder(r *result, old map[string]string) {
	w.Helper()
	for p, records := range r.log {
		for i := range records {
			if kind := records[i].headers[oona.HeaderRecord]; kind != "" && kind != oona.TickRecord {
				w.Errorf("partition %d has a record %s at offset %d", p, kind, records[i].offset)
			}
		}
	}
	for key, rollup := range r.rollups {
		if rollup.Reducer != 1 || rollup.Trigger.Incarnation != 0 {
			w.Errorf("the rollup of %s/%s at %d is of reducer %d and incarnation %d", key.run, key.layer, key.start, rollup.Reducer, rollup.Trigger.Incarnation)
		}
	}
	exporter := launchBinary(w.T, old["exporter"], nil, append(w.common(), "--lookback", "0")...)
	exporter.awaitReady(w.T, w.ctx)
	w.await("the older exporter to read all rollups", func() bool {
		m := exporter.metrics()
		return int(m["oona_exporter_rollups_total"]) >= len(r.rollups)
	})
	m := exporter.metrics()
	for name, want := range map[string]int{"rollups": len(r.rollups), "conflicts": 0, "undecodable": 0} {
		if got, known := m["oona_exporter_"+name+"_total"]; !known || int(got) != want {
			w.Errorf("the older exporter counts %v %s, not %d", got, name, want)
		}
	}
	exporter.terminate(w.T)
}

// crossOver writes a record that older programs do not know, while aggregators of both
// versions have partitions. The older one ends, and so does an older one that starts.
func (w *world) crossOver(back *process, old map[string]string) {
	w.Helper()
	finish := w.train(w.pair("run-c", 200)...)
	newer := w.launchWorker()
	w.await("aggregators of both versions to share the partitions", func() bool {
		return len(w.assigned(back)) > 0 && len(w.assigned(newer)) > 0 && back.ready() && newer.ready()
	})
	from := time.Now().Truncate(w.windows.Length).Add(4 * w.windows.Length)
	w.oona("windows", "apply", "--yes", "--reducer", "2", "--from", from.Format(time.RFC3339Nano), "--group", w.prefix)
	w.endsBecause(back, "a configuration in the log is of a later version of Oona")
	w.await("the newer aggregator to have all partitions", func() bool { return len(w.assigned(newer)) == partitions && newer.ready() })
	w.terminateWorker(newer)
	w.endsBecause(w.launchAggregator(old["aggregate"]), "this program reads versions 1 and 2") // of commits
	w.startWorker()
	w.pause(time.Until(from.Add(3 * time.Second)))
	finish()
}
