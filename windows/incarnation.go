package windows

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// Incarnation returns the number of the log's incarnation as of ProcessedTo, 0
// where the log has no incarnation record.
func (e *Engine) Incarnation() oona.Incarnation { return e.incarnation }

// opensLog reports whether no record has been read but incarnation records. Time
// does not begin with these, so that the configuration behind them is still the
// first record of the log, which holds for all of it.
func (e *Engine) opensLog() bool { return e.recovery == nil && !e.clock.Started }

// begin takes an incarnation record, and says whether it holds.
func (e *Engine) beginIncarnation(s *oona.IncarnationStart) Outcome {
	if s.Number <= e.incarnation {
		return Outcome{Passed, ReasonVoid, fmt.Sprintf("incarnation %d is void: the log is in incarnation %d", s.Number, e.incarnation)}
	}
	e.incarnation = s.Number
	return Outcome{Passed, ReasonBegun, fmt.Sprintf("incarnation %d of the log begins: %s", s.Number, s.Reason)}
}
