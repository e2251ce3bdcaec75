package scenarios

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Row 20. The topic of frames is deleted, and made again with `oona topics apply`, while all
// workers run. They continue by themselves: ingest refuses frames only while there is no
// topic, a new incarnation of the log begins, and readers accept the rollups of both logs.
func topicMadeAgain(w *world) {
	before := w.startReaders("that were there before the deletion")
	first := w.firstLife()
	w.deleteFrames()
	w.oona(w.applyTopics()...)
	second := w.secondLife()
	w.takenByAll(before, first, second)
}

// Row 20. The topic of frames is deleted, and made again without Oona's first records. A
// running aggregator ends and says what to do, and so does one that starts. After `oona
// topics apply`, an aggregator starts, and readers accept the rollups of both logs.
func topicMadeAgainByOthers(w *world) {
	before := w.startReaders("that were there before the deletion")
	first := w.firstLife()
	worker := w.workers[0]
	w.deleteFrames()
	w.makeFrames()
	w.endsBecause(worker, madeAgain, "oona topics apply")
	w.refused(madeAgain, "oona topics apply")
	w.oona(w.applyTopics()...)
	w.startWorker()
	second := w.secondLife()
	w.takenByAll(before, first, second)
}

// Row 20. The topic of frames is made again without first records, and frames come before
// `oona topics apply` is run. With --from-here, an aggregator continues with the windows of
// the previous log and emits nothing that readers would drop. Readers accept the rollups of
// both logs.
func topicMadeAgainAndWrittenTo(w *world) {
	w.windows.MaxDelay, w.windows.MaxSkew = 2*time.Second, 500*time.Millisecond // --from-here emits nothing for this time
	before := w.startReaders("that were there before the deletion")
	first := w.firstLife()
	worker := w.workers[0]
	w.deleteFrames()
	w.makeFrames()
	w.endsBecause(worker, madeAgain)
	w.await("ingest to take frames again", func() bool { return w.ingest.ready() })
	finish := w.train(w.pair("run-b", 200)...)
	w.pause(2 * time.Second)
	finish()
	w.refused(madeAgain, "oona topics apply")
	second := w.goOnFromHere(0)
	w.takenByAll(before, first, second)
}

// Row 20. The topic of frames is made again, and grows past the position of the aggregator
// before that reads again. So its reader continues in the middle of the new log. The
// aggregator notices it before it commits anything, and refuses.
func topicMadeAgainAndOutgrown(w *world) {
	w.oona(w.applyTopics()...)
	w.startIngest()
	worker := w.startWorker()
	finish := w.train(w.pair("run-a", 60)...) // so that the log is short
	w.pause(time.Second)
	finish()
	w.settle()
	w.ingest.terminate(w.T)
	frames := slices.Repeat([][]byte{strayFrame()}, 600)
	kafka.deleteTopic(w.T, w.ctx, w.topics.SeedMetrics)
	w.makeFrames()
	kafka.write(w.T, w.ctx, w.topics.SeedMetrics, frames...)
	w.endsBecause(worker, madeAgain, "oona topics apply")
	if len(worker.logged("the topic was deleted and created again; its partitions are assigned again")) == 0 {
		w.Error("the reader did not continue in the new log: the fault did not occur")
	}
	w.refused(madeAgain, "oona topics apply")
	if commits := w.commits(); len(commits) > 0 {
		w.Errorf("there are commits of the new log: %v", commits)
	}
}

// madeAgain is the error of an aggregator for a log without first records.
const madeAgain = "the rollups were made from another log, and this log has no new incarnation"

// makeFrames creates the topic of frames without first records.
func (w *world) makeFrames() {
	w.Helper()
	if _, err := kafkabus.New(kafkabus.Config{Brokers: kafka.Addrs(), ClientID: "scenarios"}, nil).Apply(w.ctx, w.topics.Specs(partitions)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) applyTopics() []string {
	return append([]string{"topics", "apply", "--partitions", fmt.Sprint(partitions)}, w.windowFlags()...)
}

// firstLife starts workers on topics of `oona topics apply`, and plays a training. It returns
// the result.
func (w *world) firstLife() (life *result) {
	w.Helper()
	w.oona(w.applyTopics()...)
	w.startIngest()
	w.startWorker()
	w.playAll("run-a")
	life = w.check()
	w.nothingAside(life)
	return life
}

// secondLife plays a training on the log that was made again, and ends the workers. It
// returns the result.
func (w *world) secondLife() (life *result) {
	w.Helper()
	w.await("ingest to take frames again", func() bool { return w.ingest.ready() })
	w.playAll("run-b")
	w.stop()
	life = w.check()
	w.nothingAside(life)
	for p, starts := range life.incarnations(w) {
		if len(starts) != 1 {
			w.Errorf("partition %d has incarnation records %+v", p, starts)
		}
	}
	return life
}

// playAll plays a training for some windows, and waits until all results are published.
func (w *world) playAll(run string) {
	w.Helper()
	finish := w.train(w.pair(oona.RunID(run), 200)...)
	w.pause(3 * time.Second)
	finish()
	w.settle()
}

// deleteFrames deletes the topic of frames. Ingest must then answer 503 to frames.
func (w *world) deleteFrames() {
	w.Helper()
	kafka.deleteTopic(w.T, w.ctx, w.topics.SeedMetrics)
	for range 3 {
		if status := postOnce(w.ctx, http.DefaultClient, w.url(), strayFrame()); status != http.StatusServiceUnavailable {
			w.Errorf("without its topic ingest answers %d", status)
		}
	}
	w.newLife()
}

// strayFrame returns a frame that no trainer has sent.
func strayFrame() []byte {
	tr := trainer{run: "run-stray", producer: "one", layers: 1, seeds: 1}
	return avro.AppendFrame(nil, tr.frame(rand.New(rand.NewPCG(1, 2)), oona.MicrosOf(time.Now()), 0))
}
