package windows

// replay folds a record that was processed before the commit from which the engine
// was resumed. Windows and frontiers are rebuilt. Watermarks, seals and the timelines
// are already as they were at the commit and do not change: windows that the
// watermark has passed were emitted.
//
// The result is the same as the first time, for two reasons. First, the outcome for a frame whose
// window is open at the commit depends only on the records of that window and on its seal. Second, a
// frontier depends only on the records within the idle horizon, all of which are replayed, and on
// the record at which a configuration has changed the horizon.
//
// replay reports whether the frame is in an open window, either folded or as a repeat.
func (e *Engine) replay(r *Record) (open bool) {
	for _, c := range e.configEpochs {
		if c.record == r.Offset {
			e.applyConfig(c)
		}
	}
	if r.Frame == nil {
		return false
	}
	c, refusal := e.checkEventTime(r)
	if refusal.Verdict != Folded {
		return false
	}
	t := e.timelines.find(r.Frame, e.bucket())
	if t == nil || r.Offset < t.admitted {
		return false
	}
	// A configuration epoch that expired before the commit has no open window there.
	if _, end := c.window(r.Frame.ObservedAt); t.watermark < c.closesAt(end) && c.expired == never {
		o := e.foldFrame(t, c, r)
		open = o.Verdict == Folded || o.Verdict == Duplicate
	}
	t.frontier.Observe(slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots), r.Frame.ObservedAt)
	return open
}
