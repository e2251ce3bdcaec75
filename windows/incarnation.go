package windows

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// Incarnation returns the number of the log's incarnation as of ProcessedTo, 0 if the
// log has had no incarnation record.
func (e *Engine) Incarnation() oona.Incarnation { return e.incarnation }

// opensLog reports whether nothing but incarnation records has been read. They do not start the log
// clock, so a configuration that follows them still counts as the first record of the log, and
// applies to the whole log.
func (e *Engine) opensLog() bool { return e.recovery == nil && !e.clock.Started }

// beginIncarnation handles an incarnation record. The outcome says whether it is in effect or void.
func (e *Engine) beginIncarnation(s *oona.IncarnationStart) Outcome {
	if s.Number <= e.incarnation {
		return Outcome{Passed, ReasonVoid, fmt.Sprintf("incarnation %d is void: the log is in incarnation %d", s.Number, e.incarnation)}
	}
	e.incarnation = s.Number
	return Outcome{Passed, ReasonBegun, fmt.Sprintf("incarnation %d of the log begins: %s", s.Number, s.Reason)}
}
