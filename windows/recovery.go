package windows

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// loss is what an engine that began anew knows of what it lacks: the records
// before the log's beginning, and the commit that said what had been emitted.
// Its windows close without a rollup until what it lacks makes no difference.
type recovery struct {
	end   int64       // offset where the log ended: what lies before may have been emitted
	begun oona.Micros // the greatest append time as of the first record; unset before it
	from  oona.Micros // the start of the first windows that are emitted; unset while there are none
	ahead bool        // the commit is of records that the log has lost at its end
}

// Restart returns an engine for a log that holds the offsets from start to
// end, whose beginning is lost and with it the group's commit, or that has
// overtaken the commit, or has lost records at its end that the commit is of. It
// is to be given the log's records from start on.
//
// Nothing is emitted that may have been emitted before, or may lack records.
// Frames of such windows are Late, with ReasonLost: windows that start before an
// instant which no frame had reached when the log had been read to end, for one
// full MaxDelay and MaxSkew by its append times, and for one idle horizon by its
// clock. Commits hold what is needed to go on so.
//
// The configurations are those of the commit; where that is the zero Commit, cfg.
// The errors are those of Resume.
func Restart(cfg Config, catalogues Catalogues, commit Commit, start, end int64) (*Engine, error) {
	if commit == (Commit{}) {
		e, err := New(cfg, catalogues)
		if err != nil {
			return nil, err
		}
		e.processedTo, e.recovery = start, &recovery{end: end, begun: unset, from: unset}
		return e, nil
	}
	e, s, err := restore(cfg, catalogues, commit)
	if err != nil {
		return nil, err
	}
	for e.configEpochs[0].expired != never {
		e.configEpochs = e.configEpochs[1:]
	}
	for _, a := range e.configEpochs {
		a.record = unknown // it may be yet to come, and is void then
	}
	e.processedTo, e.maxAppendedAt = start, s.maxAppendedAt
	e.recovery = &recovery{end: end, begun: unset, from: unset, ahead: s.processedTo > end}
	return e, nil
}

// EmitsFrom returns where the windows start that are emitted, the beginning of
// time where the engine did not begin anew. False: there are none as yet.
func (e *Engine) EmitsFrom() (oona.Micros, bool) {
	if e.recovery == nil {
		return unset, true
	}
	return e.recovery.from, e.recovery.from != unset
}

// hides reports whether the window that starts at start is not emitted.
func (l *recovery) suppresses(start oona.Micros) bool {
	return l != nil && (l.from == unset || start < l.from)
}

// outcome is what becomes of a frame of such a window.
func (l *recovery) outcome(start oona.Micros) Outcome {
	if l.from == unset {
		return Outcome{Late, ReasonLost, "the log's beginning and the group's commit were lost: windows are not emitted before the log has been read on for one maximum delay"}
	}
	return Outcome{Late, ReasonLost, fmt.Sprintf("its window starts at %s; the log's beginning and the group's commit were lost, and what starts before %s may have been emitted, or lacks records", timestamp(start), timestamp(l.from))}
}

// outlive looks at each record whether what is lost still makes a difference:
// whether a frame of before may yet come or have been folded, a producer be
// active that has not been seen, or a window have been emitted.
func (e *Engine) advanceRecovery(appendedAt oona.Micros) {
	l := e.recovery
	switch {
	case l.begun != unset:
	case l.ahead: // what is lost at the end is not of before the first record
		l.begun = appendedAt
	default:
		l.begun = e.maxAppendedAt
	}
	if l.from != unset {
		return
	}
	horizon, skew := oona.Micros(0), oona.Micros(0)
	for _, a := range e.configEpochs {
		if a.expired == never { // frames of others were observed long before
			horizon, skew = max(horizon, (logtime.BucketsPerHorizon+1)*a.spans.bucket), max(skew, a.spans.maxSkew)
		}
	}
	if e.here.Offset >= l.end && e.clock.Now >= horizon && earlier(e.maxAppendedAt, e.retention()) > l.begun {
		l.from = later(e.maxAppendedAt, skew) + 1
	}
}
