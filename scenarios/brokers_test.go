package scenarios

import "time"

// outage is how long a trainer may be held up by brokers that are gone: as long
// as a request may take, and some. With a shorter idle horizon the run would go
// on without it, and its frames would be late.
const outage = 20 * time.Second

// Row 5. The broker that leads a partition is killed and comes back; then all
// are restarted, one after the other.
func leaderKilled(w *world) {
	w.windows.IdleHorizon = outage
	w.startIngest()
	w.startWorker()
	finish := w.train(w.pair("run-a", 200)...)
	w.pause(3 * time.Second)
	leader := kafka.leader(w.T, w.ctx, w.topics.SeedMetrics, 0)
	if err := kafka.Kill(leader); err != nil {
		w.Fatal(err)
	}
	before := w.ledger.acknowledged()
	w.await("frames to be acknowledged by another leader", func() bool {
		return kafka.leaderOrNone(w.ctx, w.topics.SeedMetrics, 0) != leader && w.ledger.acknowledged() > before+200
	})
	for _, id := range []int{leader, 1, 2, 3} {
		if err := kafka.Restart(w.ctx, id); err != nil {
			w.Fatal(err)
		}
		before := w.ledger.acknowledged()
		w.await("frames to be acknowledged after a restart", func() bool { return w.ledger.acknowledged() > before+100 })
	}
	finish()
	w.stop()
	w.figure("broker %d killed, 3 restarted", leader)
	r := w.check()
	w.nothingAside(r)
}

// Row 6. Without two of three brokers nothing is acknowledged: ingest answers
// 503 and nothing else, and all goes on once they are back.
func twoBrokersDown(w *world) {
	w.windows.IdleHorizon = outage
	w.startIngest()
	w.startWorker()
	finish := w.train(w.pair("run-a", 200)...)
	w.pause(3 * time.Second)
	leader := kafka.leader(w.T, w.ctx, w.topics.SeedMetrics, 0)
	defer kafka.recover(w.T, w.ctx) // also where this fails
	for _, id := range []int{leader, leader%3 + 1} {
		if err := kafka.Kill(id); err != nil {
			w.Fatal(err)
		}
	}
	w.pause(500 * time.Millisecond) // answers that were on their way
	acknowledged := w.ledger.acknowledged()
	w.await("requests to be refused", func() bool { return w.ledger.answered(503) >= 6 })
	if now := w.ledger.acknowledged(); now != acknowledged {
		w.Errorf("%d frames were acknowledged with one broker of three", now-acknowledged)
	}
	kafka.recover(w.T, w.ctx)
	w.await("frames to be acknowledged again", func() bool { return w.ledger.acknowledged() > acknowledged+500 })
	finish()
	w.stop()
	for status, n := range w.ledger.answers {
		if status != 200 && status != 503 {
			w.Errorf("%d requests were answered %d", n, status)
		}
	}
	r := w.check()
	w.nothingAside(r)
}
