package scenarios

import "time"

// Row 7. Between the trainers and ingest, answers come late, connections are
// reset once ingest has taken the frames, and others are half open: the server
// hears, the client does not. The trainers send again, and each frame is folded
// once.
func badNetwork(w *world) {
	w.windows.AllowedLateness = 5 * time.Second // repeats come after a client's timeout
	w.startIngest()
	w.startWorker()
	bad := startProxy(w.T, w.ingest.address("ingest takes frames"), func(n int64) treatment {
		switch n % 4 {
		case 1:
			return treatment{latency: 100 * time.Millisecond}
		case 2:
			return treatment{resetAfter: 1}
		case 3:
			return treatment{deaf: true}
		}
		return treatment{latency: 5 * time.Millisecond}
	})
	// Every request has a connection of its own, so that each treatment is met.
	var trainers []trainer
	for _, tr := range w.pair("run-a", 200) {
		tr.url, tr.timeout, tr.brief = "http://"+bad.address(), time.Second, true
		trainers = append(trainers, tr)
	}
	finish := w.train(trainers...)
	w.await("resets and half-open connections", func() bool { return bad.reset.Load() >= 8 && bad.silent.Load() >= 8 })
	finish()
	w.stop()
	w.figure("%d connections, %d reset, %d half open, %d requests without an answer", bad.accepted.Load(), bad.reset.Load(), bad.silent.Load(), w.ledger.answered(0))
	r := w.check()
	w.nothingAside(r)
	if r.dup == 0 {
		w.Error("no repeat reached the log: the fault did not fire")
	}
}
