package scenarios

import (
	"time"
)

// Row 1. The aggregator is killed when it has published rollups that no commit
// knows of: the next one publishes them again, the same.
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
	if r.reemitted == 0 {
		w.Error("nothing was emitted again: the fault did not fire")
	}
}

// awaitUncommitted waits until a worker has published rollups since its last
// commit, the first of which must have been made.
func (w *world) awaitUncommitted(p *process) {
	w.Helper()
	last := p.metrics()
	w.await("rollups that are not committed", func() bool {
		now := p.metrics()
		met := now != nil && last["oona_aggregate_commits_total"] > 2 && now["oona_aggregate_commits_total"] == last["oona_aggregate_commits_total"] &&
			now["oona_aggregate_rollups_total"] > last["oona_aggregate_rollups_total"] && now["oona_aggregate_pending_messages"] == 0
		last = now
		return met
	})
}
