package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/morphogenetic/oona"
)

// stopped stops all brokers, calls a function, and starts them again.
func (w *world) stopped(work func()) {
	w.Helper()
	began := time.Now()
	if err := kafka.Stop(); err != nil {
		w.Fatal(err)
	}
	defer func() { w.figure("the brokers were down for %s", time.Since(began).Round(time.Second)) }()
	defer kafka.recover(w.T, w.ctx)
	work()
}

// copyLog copies the data of a topic on all brokers, and returns a function that restores the
// copy. The brokers must be down for both.
func (c *cluster) copyLog(w *world, topic string) (putBack func()) {
	w.Helper()
	dirs, err := filepath.Glob(filepath.Join(c.options.Dir, "node-*", "data", topic+"-*"))
	if err != nil || len(dirs) != 3*partitions {
		w.Fatalf("the brokers have %d directories of %s (%v)", len(dirs), topic, err)
	}
	copied := w.TempDir()
	over := func(to, from string) {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			w.Fatal(err)
		}
	}
	of := func(dir string) string {
		inside, err := filepath.Rel(c.options.Dir, dir)
		if err != nil {
			w.Fatal(err)
		}
		return filepath.Join(copied, inside)
	}
	for _, dir := range dirs {
		over(of(dir), dir)
	}
	return func() {
		for _, dir := range dirs {
			if err := os.RemoveAll(dir); err != nil {
				w.Fatal(err)
			}
			over(dir, of(dir))
		}
	}
}

// Row 19. All brokers get an older copy of the log, which ends before the commit. A running
// aggregator ends and says so, and so does one that starts. With --from-here, a new
// incarnation of the log begins, and readers accept all new rollups.
func logEndLost(w *world) {
	before := w.startReaders("that were there before the loss")
	first, worker := w.loseEnd()
	says := []string{"the log has lost records that were read", "--from-here"}
	w.endsBecause(worker, says...)
	w.refused(says...)
	second := w.goOnFromHere(1)
	w.takenByAll(before, first, second)
}

// Row 19. As before, but the log grows past the commit before the aggregator reads it: the
// offsets exist, but their records differ.
func logEndLostAndGrown(w *world) {
	before := w.startReaders("that were there before the loss")
	first, worker := w.loseEnd()
	w.endsBecause(worker, "the log has lost records that were read", "--from-here")
	finish := w.train(w.pair("run-b", 200)...)
	reached := w.reached()
	w.await("the log to grow past what had been read", func() bool {
		_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedMetrics)
		for p, end := range ends {
			if end < reached[p].ProcessedTo+20 {
				return false
			}
		}
		return true
	})
	finish()
	w.refused("is not the one that was read", "the log lost its end and has grown since", "--from-here")
	second := w.goOnFromHere(1)
	w.takenByAll(before, first, second)
}

// loseEnd plays a training, copies the log, plays more, and restores the copy while all
// workers run. It returns the result of the log before.
func (w *world) loseEnd() (life *result, worker *process) {
	w.Helper()
	w.windows.MaxDelay, w.windows.MaxSkew = 2*time.Second, 500*time.Millisecond // --from-here emits nothing for this time
	w.oona(append([]string{"topics", "apply", "--partitions", fmt.Sprint(partitions)}, w.windowFlags()...)...)
	w.startIngest()
	worker = w.startWorker()
	play := func() {
		finish := w.train(w.pair("run-a", 200)...)
		w.pause(2500 * time.Millisecond)
		finish()
		w.settle()
	}
	play()
	var putBack func()
	w.stopped(func() { putBack = kafka.copyLog(w, w.topics.SeedMetrics) })
	play()
	life = w.check()
	w.nothingAside(life)
	reached := w.reached()
	w.stopped(putBack)
	_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedMetrics)
	for p, r := range reached {
		if ends[p] >= r.ProcessedTo {
			w.Fatalf("partition %d ends at %d and had been read to %d: the fault did not occur", p, ends[p], r.ProcessedTo)
		}
	}
	w.newLife()
	return life, worker
}

// goOnFromHere starts an aggregator with --from-here, and later replaces it by one without.
// Each partition has the given number of incarnation records before. It returns the result
// of the log since then.
func (w *world) goOnFromHere(records int) (life *result) {
	w.Helper()
	commits, reached := w.commits(), w.reached()
	worker := w.startWorker("--from-here")
	w.restarted = make(map[int32]beginning)
	for _, l := range worker.logged("the partition starts with what its log holds: its past is lost") {
		p := int32(l["partition"].(float64))
		w.restarted[p] = beginning{commits[p], int64(l["log_end"].(float64))}
	}
	if len(w.restarted) != partitions {
		w.Fatalf("%d of %d partitions start over", len(w.restarted), partitions)
	}
	finish := w.train(w.pair("run-c", 200)...)
	w.await("rollups of the new incarnation", func() bool { return worker.metrics()["oona_aggregate_rollups_total"] >= 20 })
	w.terminateWorker(worker)
	w.startWorker() // the commit belongs to this log
	w.pause(2 * time.Second)
	finish()
	w.stop()
	life = w.check()
	for p, starts := range life.incarnations(w) {
		end := int64(oona.NoOffset)
		if r, known := reached[p]; known {
			end = r.ProcessedTo
		}
		if len(starts) != records+1 || starts[records].PreviousEnd != end || records > 0 && starts[records].Number <= starts[0].Number {
			w.Errorf("partition %d has incarnation records %+v; its log had been read to %d", p, starts, end)
		}
	}
	if n := len(life.incarnations(w)); n != partitions {
		w.Errorf("%d of %d partitions have an incarnation record", n, partitions)
	}
	return life
}

// takenByAll checks that earlier readers, and some that start now, have accepted the rollups
// of all lives.
func (w *world) takenByAll(before *readers, lives ...*result) {
	w.Helper()
	n := begun(lives...)
	if n == 0 {
		w.Error("no partition has rollups of two lives of the log: the fault did not occur")
	}
	for _, r := range []*readers{before, w.startReaders("that were started afterwards")} {
		r.stop(w, n, lives...)
	}
}
