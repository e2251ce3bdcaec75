package scenarios

import (
	"syscall"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// Row 1. The aggregator is killed when it has published rollups since its last commit. The
// next one publishes the same rollups again.
func killedBeforeCommit(w *world) {
	w.startIngest()
	worker := w.startWorker("--group-instance", "one")
	finish := w.train(w.pair("run-a", 200)...)
	const kills = 5
	for range kills {
		w.awaitUncommitted(worker)
		w.killWorker(worker)
		worker = w.startWorker("--group-instance", "one")
	}
	w.pause(2 * time.Second)
	finish()
	w.stop()
	w.figure("%d kills", kills)
	r := w.check()
	w.nothingAside(r)
	w.checkReplays(r)
	if r.reemitted == 0 {
		w.Error("nothing was emitted again: the fault did not occur")
	}
}

// awaitUncommitted waits until a worker has committed at least once, and has published
// rollups since its last commit.
func (w *world) awaitUncommitted(p *process) {
	w.Helper()
	last := p.metrics() // at the last commit that was seen
	w.await("rollups that are not committed", func() bool {
		now := p.metrics()
		if now == nil || now["oona_aggregate_commits_total"] != last["oona_aggregate_commits_total"] {
			last = now
			return false
		}
		return now["oona_aggregate_commits_total"] > 2 && now["oona_aggregate_pending_messages"] == 0 &&
			now["oona_aggregate_rollups_total"] > last["oona_aggregate_rollups_total"]
	})
}

// Row 2. The aggregator is killed while it folds and, several times, while it replays.
func killedDuringFoldAndReplay(w *world) {
	w.windows.IdleHorizon = 8 * time.Second // so that there is enough to replay
	w.startIngest()
	worker := w.startWorker("--group-instance", "one")
	finish := w.train(w.pair("run-a", 1500)...)
	const kills = 3
	folding, replaying := 0, 0
	for folding < kills || replaying < kills {
		w.await("frames that are folded", func() bool {
			m := worker.metrics()
			return m["oona_aggregate_commits_total"] > 3 && m["oona_aggregate_open_windows"] > 0
		})
		w.pause(500 * time.Millisecond)
		w.killWorker(worker)
		folding++
		w.pause(time.Second) // for new records, after those that are replayed
		worker = w.launchWorker("--group-instance", "one")
		if w.killWhileReplaying(worker) {
			replaying++
			worker = w.launchWorker("--group-instance", "one")
		}
		worker.awaitReady(w.T, w.ctx)
	}
	finish()
	w.stop()
	w.figure("%d kills while folding, %d while replaying", folding, replaying)
	r := w.check()
	w.nothingAside(r)
	w.checkReplays(r)
}

// killWhileReplaying returns false if the worker has finished the replay first.
func (w *world) killWhileReplaying(p *process) bool {
	w.Helper()
	for {
		status, _, err := p.get("/readyz")
		if err == nil && status == 200 {
			return false
		}
		// Records were replayed, and no new record was folded, although there are
		// many: the worker is replaying.
		m := p.metrics()
		if m["oona_aggregate_replayed_records_total"] > 0 && m["oona_aggregate_records_total"] == 0 {
			w.killWorker(p)
			return true
		}
		if !bus.Pause(w.ctx, time.Millisecond) {
			w.Fatal("a worker neither replays nor is ready")
		}
	}
}

// Row 3. A worker is suspended for longer than its session, and the other gets its
// partitions. The worker resumes as a zombie that still has records.
func stoppedPastSession(w *world) {
	w.startIngest()
	zombie := w.startWorker("--group-instance", "one")
	other := w.startWorker("--group-instance", "two")
	w.await("both workers to have partitions", func() bool {
		return len(w.assigned(zombie)) > 0 && len(w.assigned(other)) > 0
	})
	finish := w.train(w.pair("run-a", 300)...)
	w.pause(3 * time.Second)
	const stops = 2
	for range stops {
		w.await("a partition at the worker that is to stop, folding", func() bool {
			return zombie.metrics()["oona_aggregate_open_windows"] > 0
		})
		held := other.metrics()["oona_aggregate_assignments_total"]
		zombie.signal(w.T, syscall.SIGSTOP)
		w.await("the other to have all partitions", func() bool {
			return len(w.assigned(other)) == partitions && other.metrics()["oona_aggregate_assignments_total"] > held && other.ready()
		})
		w.pause(2 * time.Second)
		zombie.signal(w.T, syscall.SIGCONT)
		w.await("the zombie to join again", func() bool {
			return len(w.assigned(zombie)) > 0 && zombie.ready() && other.ready() && len(w.assigned(zombie))+len(w.assigned(other)) == partitions
		})
	}
	w.pause(2 * time.Second)
	finish()
	w.stop()
	w.figure("%d stops, %d commits of the zombie refused", stops, len(zombie.logged("a commit failed; the last commit stays valid")))
	r := w.check()
	w.nothingAside(r)
	w.checkReplays(r)
}

// assigned returns the partitions of a worker according to its log.
func (w *world) assigned(p *process) (found []string) {
	for series := range p.metrics() {
		if len(series) > len(openSeries) && series[:len(openSeries)] == openSeries {
			found = append(found, series[len(openSeries):])
		}
	}
	return found
}

const openSeries = "oona_aggregate_open_windows{"

// Row 4. Every five seconds, a worker joins, or one leaves, cleanly or killed.
func joinAndLeave(w *world) {
	w.startIngest()
	w.startWorker()
	finish := w.train(w.pair("run-a", 300)...)
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	joined, left, killed := 0, 0, 0
	for step := range 10 {
		select {
		case <-ticker.C:
		case <-w.ctx.Done():
			w.Fatal("the scenario takes too long")
		}
		switch {
		case step%2 == 0:
			w.launchWorker()
			joined++
		case step == 5:
			w.killWorker(w.workers[0])
			killed++
		default:
			w.terminateWorker(w.workers[0])
			left++
		}
	}
	finish()
	w.stop()
	w.figure("%d joined, %d left, %d were killed", joined, left, killed)
	assignments := 0
	for _, p := range w.all {
		assignments += len(p.logged("partition assigned"))
	}
	w.figure("%d assignments", assignments)
	if assignments < 3*partitions {
		w.Errorf("%d assignments: the group was not rebalanced", assignments)
	}
	r := w.check()
	w.nothingAside(r)
	w.checkReplays(r)
}
