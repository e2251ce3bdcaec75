package windows

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// recovery is the state of an engine that was restarted after records or the commit
// were lost. Its windows close without a rollup until the loss makes no difference
// any more.
type recovery struct {
	end   int64       // offset where the log ended at the restart: windows of records before it may have been emitted
	begun oona.Micros // records that are lost may have append times up to this; unset before the first record
	from  oona.Micros // windows that start here or later are emitted; unset while none are
	ahead bool        // the log has lost records at its end which had been folded
}

// Restart returns an engine for a log that has lost records. The log holds the
// offsets from start to end. Either its beginning is lost, together with the group's
// commit or with records that the commit needs, or records at its end are lost that
// the commit covers. Fold must be given the log's records from start on.
//
// The engine emits no window that may have been emitted before or may lack records.
// Frames of such a window are Late, with ReasonLost. Windows are emitted again after the
// log has been read to end, for one MaxDelay and MaxSkew by its append times, and for one
// idle horizon by its clock. At the record where all of this is true, frames can have
// reached some event time at most. The first window that starts later is the first that
// is emitted. Commits include this state.
//
// The engine continues with the configurations of the commit, or with cfg if commit is
// zero. Restart returns the errors of Resume.
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
	for _, c := range e.configEpochs {
		c.record = unknown // if the record is still to come, it is void
	}
	e.processedTo, e.maxAppendedAt = start, s.maxAppendedAt
	e.recovery = &recovery{end: end, begun: unset, from: unset, ahead: s.processedTo > end}
	return e, nil
}

// EmitsFrom returns the earliest start of a window that is emitted: the beginning of
// time unless the engine was made by Restart. It returns false if none are emitted
// yet.
func (e *Engine) EmitsFrom() (oona.Micros, bool) {
	if e.recovery == nil {
		return unset, true
	}
	return e.recovery.from, e.recovery.from != unset
}

// suppresses reports whether the window that starts at start is not emitted.
func (r *recovery) suppresses(start oona.Micros) bool {
	return r != nil && (r.from == unset || start < r.from)
}

// outcome returns what becomes of a frame of a window that is suppressed.
func (r *recovery) outcome(start oona.Micros) Outcome {
	if r.from == unset {
		return Outcome{Late, ReasonLost, "the log has lost records, or the commit was lost: no windows are emitted until the log has been read on for max-delay, max-skew and the idle horizon"}
	}
	return Outcome{Late, ReasonLost, fmt.Sprintf("its window starts at %s. The log has lost records, or the commit was lost: windows that start before %s may have been emitted before, or may lack records", timestamp(start), timestamp(r.from))}
}

// advanceRecovery checks at each record whether the loss can still make a
// difference: whether a frame of that time may come or have been folded, a producer
// be active that has not been seen, or a window have been emitted.
func (e *Engine) advanceRecovery(appendedAt oona.Micros) {
	r := e.recovery
	switch {
	case r.begun != unset:
	case r.ahead: // what is lost at the end does not come before the first record
		r.begun = appendedAt
	default:
		r.begun = e.maxAppendedAt
	}
	if r.from != unset {
		return
	}
	horizon, skew := oona.Micros(0), oona.Micros(0)
	for _, c := range e.configEpochs {
		if c.expired == never { // frames of the others were observed long before
			horizon, skew = max(horizon, (logtime.BucketsPerHorizon+1)*c.spans.bucket), max(skew, c.spans.maxSkew)
		}
	}
	if e.here.Offset >= r.end && e.clock.Now >= horizon && earlier(e.maxAppendedAt, e.retention()) > r.begun {
		r.from = later(e.maxAppendedAt, skew) + 1
	}
}
