package scenarios

import (
	"maps"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

// Row 12. All trainers are silent, and ticks close the windows. When the trainers resume,
// their next windows are open.
func idleThenResume(w *world) {
	w.startIngest()
	worker := w.startWorker()
	const pauses = 2
	for range pauses {
		ticks := worker.metrics()["oona_aggregate_ticks_written_total"]
		finish := w.train(w.pair("run-a", 200)...)
		w.pause(4 * time.Second)
		finish()
		w.settle()
		if now := worker.metrics()["oona_aggregate_ticks_written_total"]; now == ticks {
			w.Error("the windows were closed without ticks")
		}
		w.pause(2 * w.windows.IdleHorizon)
	}
	w.figure("%v ticks", worker.metrics()["oona_aggregate_ticks_written_total"])
	w.stop()
	r := w.check()
	w.nothingAside(r)
}

// interrupted returns a world whose only worker was killed with open windows, and whose
// trainers have continued for a while.
func (w *world) interrupted() {
	w.Helper()
	w.startIngest()
	worker := w.startWorker()
	finish := w.train(w.pair("run-a", 300)...)
	w.pause(4 * time.Second)
	w.awaitUncommitted(worker)
	w.killWorker(worker)
	w.pause(2 * time.Second)
	finish()
}

// rollupEnds returns the ends of the rollup topics.
func (w *world) rollupEnds() map[string]map[int32]int64 {
	w.Helper()
	ends := make(map[string]map[int32]int64)
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		_, ends[w.topics.Rollup(group)] = kafka.extents(w.T, w.ctx, w.topics.Rollup(group))
	}
	return ends
}

// endsBecause checks that a worker ends by itself, and that its log has the reason.
func (w *world) endsBecause(p *process, says ...string) {
	w.Helper()
	said := p.refuses(w.T, 5*time.Minute)
	w.gone(p)
	for _, text := range says {
		if !strings.Contains(said, text) {
			w.Errorf("the worker does not say %q:\n%s", text, said)
		}
	}
}

// refused checks that a worker ends, that its log has the reason, and that nothing is emitted.
func (w *world) refused(says ...string) {
	w.Helper()
	before := w.rollupEnds()
	committed := kafka.committed(w.T, w.ctx, w.prefix, w.topics.SeedMetrics, partitions)
	p := w.launchWorker()
	w.endsBecause(p, says...)
	for topic, ends := range w.rollupEnds() {
		if !maps.Equal(ends, before[topic]) {
			w.Errorf("%s went from %v to %v", topic, before[topic], ends)
		}
	}
	if now := kafka.committed(w.T, w.ctx, w.prefix, w.topics.SeedMetrics, partitions); !maps.Equal(now, committed) {
		w.Errorf("the commits went from %v to %v", committed, now)
	}
	w.figure("status %d", p.cmd.ProcessState.ExitCode())
}

// Row 13. Retention deletes records that the commit needs. The worker ends and says so.
func retentionOvertakes(w *world) {
	w.interrupted()
	committed := kafka.committed(w.T, w.ctx, w.prefix, w.topics.SeedMetrics, partitions)
	_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedMetrics)
	before := make(map[int32]int64)
	for p, offset := range committed {
		if offset >= 0 && offset+10 < ends[p] {
			before[p] = offset + 10
		}
	}
	if len(before) == 0 {
		w.Fatalf("committed %v of %v: nothing to delete", committed, ends)
	}
	kafka.deleteRecords(w.T, w.ctx, w.topics.SeedMetrics, before)
	w.refused("records that the commit still needs were deleted from the log", "Lengthen the retention")
	w.ingest.terminate(w.T)
}

// Row 16. Partitions are added to the topic of frames, and then to the topics of rollups. Keys
// have moved while their windows were open, so the worker refuses.
func partitionsAdded(w *world) {
	w.interrupted()
	wider := func(topic string) {
		kafka.addPartitions(w.T, w.ctx, topic, partitions+2)
		w.await("the new partitions to have leaders", func() bool {
			return kafka.leaderOrNone(w.ctx, topic, partitions+1) > 0
		})
	}
	wider(w.topics.SeedMetrics)
	w.refused("topics are not as they must be", "has 3 partitions", "has 5")
	wider(w.topics.LayerHealth)
	wider(w.topics.LayerPerformance)
	w.refused("the topic's number of partitions has changed", "had 3 when this was committed and has 5")
	w.ingest.terminate(w.T)
}

// Row 16. The group's offsets are lost, but the log is complete. It is folded again, and the
// same rollups are emitted.
func offsetsLostLogWhole(w *world) {
	w.interrupted()
	kafka.deleteGroup(w.T, w.ctx, w.prefix)
	w.startWorker()
	w.stop()
	r := w.check()
	w.nothingAside(r)
	if r.reemitted == 0 {
		w.Error("nothing was emitted again: the fault did not occur")
	}
}

// Row 16. The group's offsets and the beginning of the log are lost. What was folded before
// is unknown, so the worker refuses.
func offsetsLostLogCut(w *world) {
	w.interrupted()
	_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedMetrics)
	before := make(map[int32]int64)
	for p, end := range ends {
		if end > 20 {
			before[p] = 10
		}
	}
	kafka.deleteRecords(w.T, w.ctx, w.topics.SeedMetrics, before)
	kafka.deleteGroup(w.T, w.ctx, w.prefix)
	w.refused("the group has no commit, and the beginning of the log was deleted")
	w.ingest.terminate(w.T)
}
