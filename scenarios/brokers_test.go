package scenarios

import "time"

// outage is longer than brokers that are down may delay a trainer. With a shorter idle
// horizon, the windows would close without its frames, which would be late.
const outage = 20 * time.Second

// Row 5. The broker that leads a partition is killed and restarted. Then all brokers are
// restarted, one after the other.
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
	before := w.acks.acknowledged()
	w.await("frames to be acknowledged by another leader", func() bool {
		return kafka.leaderOrNone(w.ctx, w.topics.SeedMetrics, 0) != leader && w.acks.acknowledged() > before+200
	})
	for _, id := range []int{leader, 1, 2, 3} {
		if err := kafka.Restart(w.ctx, id); err != nil {
			w.Fatal(err)
		}
		before := w.acks.acknowledged()
		w.await("frames to be acknowledged after a restart", func() bool { return w.acks.acknowledged() > before+100 })
	}
	finish()
	w.stop()
	w.figure("broker %d killed, 3 restarted", leader)
	r := w.check()
	w.nothingAside(r)
}

// Row 6. Without two of three brokers, nothing is acknowledged, and ingest answers only 503.
// When the brokers are back, everything continues.
func twoBrokersDown(w *world) {
	w.windows.IdleHorizon = outage
	w.startIngest()
	w.startWorker()
	finish := w.train(w.pair("run-a", 200)...)
	w.pause(3 * time.Second)
	leader := kafka.leader(w.T, w.ctx, w.topics.SeedMetrics, 0)
	defer kafka.recover(w.T, w.ctx) // even if the scenario fails
	for _, id := range []int{leader, leader%3 + 1} {
		if err := kafka.Kill(id); err != nil {
			w.Fatal(err)
		}
	}
	w.pause(500 * time.Millisecond) // for answers in flight
	acknowledged := w.acks.acknowledged()
	w.await("requests to be refused", func() bool { return w.acks.answered(503) >= 6 })
	if now := w.acks.acknowledged(); now != acknowledged {
		w.Errorf("%d frames were acknowledged with one broker of three", now-acknowledged)
	}
	kafka.recover(w.T, w.ctx)
	w.await("frames to be acknowledged again", func() bool { return w.acks.acknowledged() > acknowledged+500 })
	finish()
	w.stop()
	for status, n := range w.acks.answers {
		if status != 200 && status != 503 {
			w.Errorf("%d requests were answered %d", n, status)
		}
	}
	r := w.check()
	w.nothingAside(r)
}
