package scenarios

import "time"

// Row 7. Between the trainers and ingest, answers come late, connections are reset after
// ingest has accepted the frames, and others are half open: the server receives, but the
// client does not. The trainers send again, and each frame is folded once.
func badNetworkOfTrainers(w *world) {
	w.windows.AllowedLateness = 5 * time.Second // repeats come after the timeout of a client
	w.startIngest()
	w.startWorker()
	bad := startProxy(w.T, "127.0.0.1:0", w.ingest.address("ingest accepts frames"), func(n int64) fate {
		return []fate{sound, lost, deaf, torn}[n%4]
	})
	bad.latency.Store(int64(20 * time.Millisecond))
	// Each request has its own connection, so that each fate occurs.
	var trainers []trainer
	for _, tr := range w.pair("run-a", 200) {
		tr.url, tr.timeout, tr.brief = "http://"+bad.address(), time.Second, true
		trainers = append(trainers, tr)
	}
	finish := w.train(trainers...)
	w.await("resets and half-open connections", func() bool { return bad.resets.Load() >= 16 && bad.halfOpen.Load() >= 8 && bad.held.Load() > 0 })
	finish()
	w.stop()
	w.figure("%d connections, %d reset, %d half open, %d requests without an answer", bad.accepted.Load(), bad.resets.Load(), bad.halfOpen.Load(), w.acks.answered(0))
	r := w.check()
	w.nothingAside(r)
	if r.dup == 0 {
		w.Error("no repeat reached the log: the fault did not occur")
	}
}

// Row 7. Between the workers and the brokers, the network is slow for a while. Then connections are
// reset during requests or answers. Then they become half open: at first brokers act but their answers
// are lost, and in the end nothing passes.
func badNetworkOfBrokers(w *world) {
	w.windows.IdleHorizon = outage
	net := w.startNetwork()
	w.brokers = net.addresses()
	w.startIngest()
	worker := w.startWorker("--group-instance", "one")
	finish := w.train(w.pair("run-a", 200)...)
	w.awaitProgress(worker, "on a good network")
	w.slowNetwork(net, worker)
	w.brokenConnections(net, worker)
	w.brokersUnheard(net)
	w.brokersUnreachable(net, worker)
	w.awaitProgress(worker, "on a good network again")
	w.awaitCommits(worker)
	finish()
	w.stop()
	failed := len(worker.logged("a commit failed; the last commit stays valid"))
	w.figure("%d connections, %d reset, %d half open, %d bytes held, %d answers of 503, %d commits failed",
		net.sum(accepted), net.sum(resets), net.sum(halfOpen), net.sum(held), w.acks.answered(503), failed)
	r := w.check()
	w.nothingAside(r)
	if r.dup == 0 || w.acks.answered(503) == 0 {
		w.Errorf("%d frames were in the log again, %d requests were refused: nothing was sent again", r.dup, w.acks.answered(503))
	}
	if failed == 0 {
		w.Error("no commit failed: the aggregator did not notice")
	}
}

// awaitProgress waits until the frames of a second were acknowledged and folded.
func (w *world) awaitProgress(worker *process, when string) {
	w.Helper()
	acknowledged, folded := w.acks.acknowledged(), worker.metrics()["oona_aggregate_records_total"]
	w.await("frames to be acknowledged and folded "+when, func() bool {
		return w.acks.acknowledged() > acknowledged+200 && worker.metrics()["oona_aggregate_records_total"] > folded+200
	})
}

// awaitCommits waits until a worker has all partitions and commits them.
func (w *world) awaitCommits(worker *process) {
	w.Helper()
	w.await("commits to be made again", func() bool {
		return len(w.assigned(worker)) == partitions && worker.ready() && worker.oldestCommit() < 2
	})
}

func (w *world) slowNetwork(net *network, worker *process) {
	w.Helper()
	const latency = 50 * time.Millisecond
	net.delay(latency)
	w.pause(time.Second) // for requests in flight
	before := w.ingest.metrics()
	w.awaitProgress(worker, "on a slow network")
	after := w.ingest.metrics()
	net.delay(0)
	took := (after["oona_ingest_publish_seconds_sum"] - before["oona_ingest_publish_seconds_sum"]) /
		(after["oona_ingest_publish_seconds_count"] - before["oona_ingest_publish_seconds_count"])
	w.figure("publishing took %.0f ms on a slow network", 1000*took)
	if took < 2*latency.Seconds() {
		w.Errorf("publishing took %.3f s on a slow network: not all went through the proxies", took)
	}
}

func (w *world) brokenConnections(net *network, worker *process) {
	w.Helper()
	before := net.sum(accepted)
	for range 3 {
		for _, f := range []fate{torn, lost} {
			fired := net.sum(resets)
			net.meet(f)
			w.await("connections to be reset", func() bool { return net.sum(resets) >= fired+3 })
			w.awaitProgress(worker, "after resets")
		}
	}
	if again := net.sum(accepted) - before; again < net.sum(resets)/2 {
		w.Errorf("%d connections were made after %d were reset", again, net.sum(resets))
	}
}

// brokersUnheard lets brokers write records to the log, and drops their answers.
func (w *world) brokersUnheard(net *network) {
	w.Helper()
	unconfirmed := func() float64 { return w.ingest.metrics()["oona_ingest_unconfirmed_frames_total"] }
	before, heldBefore := unconfirmed(), net.sum(held)
	net.sever(deaf, 1, 2, 3)
	w.await("answers to be held and frames to be unconfirmed", func() bool { return net.sum(held) > heldBefore && unconfirmed() > before })
	net.heal()
	acknowledged := w.acks.acknowledged()
	w.await("frames to be acknowledged again", func() bool { return w.acks.acknowledged() > acknowledged+200 })
}

// brokersUnreachable lets nothing pass for nearly the time of a session. Nothing is
// acknowledged or read, which shows that the workers use only the proxies.
func (w *world) brokersUnreachable(net *network, worker *process) {
	w.Helper()
	heldBefore := net.sum(held)
	net.sever(dead, 1, 2, 3)
	w.pause(time.Second) // for answers in flight
	acknowledged, read := w.acks.acknowledged(), worker.metrics()["oona_aggregate_records_total"]
	w.pause(8 * time.Second)
	if n := w.acks.acknowledged() - acknowledged; n > 0 {
		w.Errorf("%d frames were acknowledged without a way to the brokers", n)
	}
	if n := worker.metrics()["oona_aggregate_records_total"] - read; n > 0 {
		w.Errorf("%v records were read without a way to the brokers", n)
	}
	if net.sum(held) == heldBefore {
		w.Error("nothing was held: the fault did not occur")
	}
	net.heal()
}
