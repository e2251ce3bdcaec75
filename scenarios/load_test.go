package scenarios

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Row 11. Some clocks are wrong by 5 s, which is allowed, and others by two hours, which is
// not. Producers send out of order, within the limit and beyond it. No frame of a producer
// with a right clock is lost.
func clocksOff(w *world) {
	w.windows.MaxDelay = time.Hour
	w.startIngest()
	w.startWorker()
	with := func(run oona.RunID, producer oona.ProducerID, skew, disorder time.Duration) trainer {
		return trainer{url: w.url(), run: run, producer: producer, layers: 3, seeds: 4, rate: 50, skew: skew, disorder: disorder}
	}
	// It matters which clock a run begins with, as a watermark never goes back.
	finishBegun := w.train(with("five", "behind", -5*time.Second, 0), with("hasty", "ahead", 5*time.Second, 0))
	w.pause(2 * time.Second)
	finish := w.train(append(w.pair("good", 100),
		with("good", "future", 2*time.Hour, 0), // in the same run as good producers
		with("good", "past", -2*time.Hour, 0),
		with("five", "ahead", 5*time.Second, 0),
		with("five", "right", 0, 0),
		with("hasty", "right", 0, 0),
		with("shuffled", "one", 0, 90*time.Millisecond),
		with("jumbled", "one", 0, 4*time.Second),
	)...)
	w.pause(15 * time.Second)
	finish()
	finishBegun()
	w.stop()
	r := w.check()
	reasons := r.reasons(w.topics.Quarantine)
	w.figure("quarantined %v, late of the jumbled run %d of %d", reasons, r.byRun["jumbled"][w.topics.Late], total(r.byRun["jumbled"]))
	if reasons["future"] < 100 || reasons["stale"] < 100 || len(reasons) != 2 {
		w.Errorf("quarantined are %v", reasons)
	}
	if n := reasons["future"] + reasons["stale"]; n != r.byRun["good"][w.topics.Quarantine] {
		w.Errorf("%d are quarantined of %d", r.byRun["good"][w.topics.Quarantine], n)
	}
	if r.byRun["jumbled"][w.topics.Late] == 0 {
		w.Error("no frame beyond the allowed disorder is late: the fault did not occur")
	}
	for _, run := range []oona.RunID{"good", "five", "shuffled"} {
		if late := r.byRun[run][w.topics.Late]; late > 0 {
			w.Errorf("%d frames of run %s are late", late, run)
		}
	}
	w.checkHasty(r)
}

// checkHasty checks a run whose first clock is ahead: the frames of another producer are late
// until its clock reaches the time of the first clock when it joined, and not after that.
func (w *world) checkHasty(r *result) {
	w.Helper()
	var decoder avro.FrameDecoder
	var f oona.Frame
	late, folded := 0, 0
	for p, records := range r.log {
		ahead, joined := oona.Micros(0), oona.Micros(0) // the greatest event time; its value when the right clock joined
		for i := range records {
			if records[i].headers[oona.HeaderRecord] != "" {
				continue
			}
			if _, err := decoder.Decode(records[i].value, &f); err != nil {
				w.Fatal(err)
			}
			if f.Run != "hasty" {
				continue
			}
			_, isLate := r.side[w.topics.Late][origin{p, records[i].offset}]
			if f.Producer == "ahead" {
				ahead = max(ahead, f.ObservedAt)
				if isLate {
					w.Errorf("frame %d of the clock that is ahead is late", f.Sequence)
				}
				continue
			}
			if joined == 0 {
				joined = ahead
			}
			switch {
			case !isLate:
				folded++
			case f.ObservedAt >= joined:
				w.Errorf("frame %d of the clock that is right is late, %d microseconds after it has caught up", f.Sequence, f.ObservedAt-joined)
			default:
				late++
			}
		}
	}
	w.figure("behind a clock that is ahead %d were late, %d folded", late, folded)
	if late == 0 || folded == 0 {
		w.Error("no frame is late behind the clock that is ahead, or all are")
	}
}

func total(counts map[string]int) (n int) {
	for _, count := range counts {
		n += count
	}
	return n
}

// Row 14. The log has records that are not frames.
func poison(w *world) {
	w.foreign = true
	w.startIngest()
	worker := w.startWorker()
	finish := w.train(w.pair("run-a", 200)...)
	random := rand.New(rand.NewPCG(14, 14))
	good := avro.AppendFrame(nil, w.pair("run-b", 1)[0].frame(random, 1, 1))
	const rounds = 200
	for range rounds {
		var values [][]byte
		noise := make([]byte, random.IntN(200))
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		torn := good[:random.IntN(len(good))]
		longer := append(append([]byte(nil), good...), 0)
		values = append(values, noise, torn, longer, nil)
		kafka.write(w.T, w.ctx, w.topics.SeedMetrics, values...)
	}
	w.pause(time.Second)
	finish()
	w.settle()
	memory := worker.peakMemory(w.T)
	w.stop()
	r := w.check()
	w.figure("%d MiB at most", memory>>20)
	if dead := len(r.side[w.topics.SeedMetricsDead]); dead != 4*rounds {
		w.Errorf("%d dead letters of %d", dead, 4*rounds)
	}
	for topic, origins := range r.side {
		if topic != w.topics.SeedMetricsDead && len(origins) > 0 {
			w.Errorf("%d records on %s", len(origins), topic)
		}
	}
	if memory > 200<<20 {
		w.Errorf("the worker had %d MiB", memory>>20)
	}
}

// Row 14. There are 100,000 keys, more than the limits allow. Frames beyond the limits are
// counted and go to the overflow topic, the others are folded, and memory stays within its
// limit.
func manyKeys(w *world) {
	const keys, room, memoryCap = 100_000, 30_000, 512 << 20
	w.windows.MaxAccumulators, w.windows.MaxTimelineAccumulators, w.windows.MaxLayers = room, room, keys
	w.windows.Length = 10 * time.Second // so that all of them are open at the same time
	w.startIngest()
	worker := w.startWorker()
	w.post(keys)
	finish := w.train(w.pair("run-a", 100)...)
	w.pause(2 * time.Second)
	finish()
	w.settle()
	memory := worker.peakMemory(w.T)
	w.stop()
	r := w.check()
	w.figure("%v, %d MiB at most", r.reasons(w.topics.Overflow), memory>>20)
	if len(r.side[w.topics.Overflow]) == 0 {
		w.Error("nothing overflowed: the fault did not occur")
	}
	if memory > memoryCap {
		w.Errorf("the worker had %d MiB", memory>>20)
	}
}

// post sends one frame for each of many layers, as fast as ingest accepts them.
func (w *world) post(keys int) {
	w.Helper()
	client := &http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	now := oona.MicrosOf(time.Now())
	const each = 1000
	for from := 0; from < keys; from += each {
		var body []byte
		var ids []identity
		for i := from; i < from+each; i++ {
			f := &oona.Frame{
				Run: "many", Layer: oona.LayerID(fmt.Sprintf("layer.%d", i)), Producer: "one", Epoch: now, Sequence: int64(i), ObservedAt: now,
				Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training}, Metrics: []oona.Column{{Name: "reconstruction_loss", Values: []float32{1}}},
			}
			mark := len(body)
			body = avro.AppendFrame(body, f)
			w.acks.note(identityOf(f), body[mark:])
			ids = append(ids, identityOf(f))
		}
		post(w.ctx, client, w.url(), body, ids, w.acks)
	}
}

// Row 15. The aggregator is down while the trainers send. Afterwards it folds their frames as
// if it had been running.
func backlog(w *world) {
	const memoryCap = 400 << 20
	w.startIngest()
	worker := w.startWorker()
	finish := w.train(append(w.pair("run-a", 2000), w.pair("run-b", 2000)...)...)
	w.pause(3 * time.Second)
	w.killWorker(worker)
	w.pause(60 * time.Second)
	finish()
	began := time.Now()
	worker = w.launchWorker()
	w.await("the backlog", func() bool { return worker.metrics()["oona_aggregate_assignments_total"] == partitions })
	behind := worker.metrics()["oona_aggregate_lag_records"]
	worker.awaitReady(w.T, w.ctx)
	caughtUp := time.Since(began)
	w.settle()
	memory := worker.peakMemory(w.T)
	w.stop()
	w.figure("%v records behind, caught up in %s, %d MiB at most", behind, caughtUp.Round(100*time.Millisecond), memory>>20)
	if behind < 1000 {
		w.Errorf("%v records behind: the fault did not occur", behind)
	}
	if memory > memoryCap {
		w.Errorf("the worker had %d MiB", memory>>20)
	}
	r := w.check()
	w.nothingAside(r)
}
