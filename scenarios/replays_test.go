package scenarios

// checkReplays checks that no worker replayed more of the log than assignments may need: the
// windows that were open at a commit, and the idle horizon, which is measured in quarters.
func (w *world) checkReplays(r *result) {
	w.Helper()
	bound := w.windows.IdleHorizon*5/4 + w.windows.Length + w.windows.AllowedLateness + w.windows.OutOfOrderness + 2*w.windows.TickInterval
	most := 0 // the greatest number of records of a partition within the bound
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
		assignments := len(p.logged("partition assigned"))
		sum += p.replayed
		if p.replayed > assignments*most {
			w.Errorf("a worker replayed %d records in %d assignments, more than %d each", p.replayed, assignments, most)
		}
	}
	w.figure("%d records replayed, at most %d per assignment allowed", sum, most)
}
