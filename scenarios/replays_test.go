package scenarios

// checkReplays holds what each worker read again against how much of the log a
// claim may need: what was open at a commit, and the idle horizon, which is
// measured in quarters.
func (w *world) checkReplays(r *result) {
	w.Helper()
	bound := w.windows.IdleHorizon*5/4 + w.windows.Length + w.windows.AllowedLateness + w.windows.OutOfOrderness + 2*w.windows.TickInterval
	most := 0 // records of a partition within the bound, wherever they are the densest
	for _, records := range r.log {
		first := 0
		for i := range records {
			for records[i].appended.Time().Sub(records[first].appended.Time()) > bound {
				first++
			}
			most = max(most, i-first+1)
		}
	}
	sum := 0
	for _, p := range w.all {
		claims := len(p.logged("partition assigned"))
		sum += p.replayed
		if p.replayed > claims*most {
			w.Errorf("a worker replayed %d records in %d claims, more than %d each", p.replayed, claims, most)
		}
	}
	w.figure("%d records replayed, a claim may %d", sum, most)
}
