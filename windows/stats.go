package windows

import "github.com/morphogenetic/oona"

// Stats are an engine's sizes, for metrics.
type Stats struct {
	Timelines     int // at most Config.MaxTimelines
	OpenWindows   int
	Accumulators  int         // layers of open windows; at most Config.MaxAccumulators
	SealedWindows int64       // windows that get no further layers, including some that were never opened
	Evictions     int64       // timelines forgotten since the engine was made
	OldestEnd     oona.Micros // the least end of an open window; 0 if none is open
}

// Stats returns the engine's sizes.
func (e *Engine) Stats() Stats {
	s := Stats{
		Timelines:    e.timelines.count(),
		OpenWindows:  e.open,
		Accumulators: e.openLayers,
		Evictions:    e.timelines.evicted,
	}
	first := true
	e.timelines.all(func(t *timeline) {
		s.SealedWindows += t.seals.windows()
		if len(t.windows) > 0 && (first || t.windows[0].end < s.OldestEnd) {
			first, s.OldestEnd = false, t.windows[0].end
		}
	})
	return s
}
