package windows

// replay takes a record that was decided before the commit from which the
// engine was resumed. Windows and frontiers are rebuilt; watermarks, seals and
// the timelines are as they were at the commit, and stay so: what the watermark
// has passed by then has been emitted.
//
// That this comes to the same as the first time rests on two things. What
// becomes of a frame whose window is open at the commit is a function of the
// records of that window and its seal. And a frontier is a function of the
// records within the horizon, all of which are replayed, and of where among them
// a configuration changed the horizon.
func (e *Engine) replay(r *Record) {
	for _, a := range e.configEpochs {
		if a.record == r.Offset {
			e.applyConfig(a)
		}
	}
	if r.Frame == nil {
		return
	}
	a, refusal := e.checkEventTime(r)
	if refusal.Verdict != Folded {
		return
	}
	t := e.timelines.find(r.Frame, e.bucket())
	if t == nil || r.Offset < t.admitted {
		return
	}
	// An era that has been retired by the commit has no window open at it.
	if _, end := a.window(r.Frame.ObservedAt); t.watermark < a.closes(end) && a.expired == never {
		e.foldFrame(t, a, r)
	}
	t.frontier.Observe(slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots), r.Frame.ObservedAt)
}
