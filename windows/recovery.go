package windows

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// recovery is the state of an engine that was restarted after records or the commit were lost.
// Windows close without a rollup until the loss can no longer affect them.
type recovery struct {
	end   int64       // end of the log at the restart: windows of records below it may have been emitted
	begun oona.Micros // the latest append time that a lost record may have; unset before the first record
	from  oona.Micros // windows that start here or later are emitted; unset while none are
	ahead bool        // whether the log has lost records at its end that had been folded
}

// Restart returns an engine for a log that has lost records. The log holds the
// offsets from start to end. Either its beginning is lost, together with the group's
// commit or with records that the commit needs, or records at its end are lost that
// the commit covers. Fold must be given the log's records from start on.
//
// The engine emits no window that may have been emitted before or may lack records. Frames of such a
// window are Late, with ReasonLost. Three conditions must be met before windows are emitted again:
// the log was read to end; its append times have advanced by MaxDelay plus MaxSkew; and its clock has
// advanced by the idle horizon. At the record at which all are met, there is a latest event time that
// any frame can have reached. The first window that starts after that time is the first one that is
// emitted. Commits include this state.
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
		c.record = unknown // if the record is read later, it is void
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

// outcome returns the outcome for a frame in a window that is suppressed.
func (r *recovery) outcome(start oona.Micros) Outcome {
	if r.from == unset {
		return Outcome{Late, ReasonLost, "the log has lost records, or the commit was lost: no windows are emitted until the log has been read on for max-delay, max-skew and the idle horizon"}
	}
	return Outcome{Late, ReasonLost, fmt.Sprintf("its window starts at %s. The log has lost records, or the commit was lost: windows that start before %s may have been emitted before, or may lack records", timestamp(start), timestamp(r.from))}
}

// advanceRecovery checks at each record whether the loss can still affect windows. It can as long as
// one of these is possible: a frame of that time may arrive or may have been folded; a producer that
// was not seen may be active; a window may have been emitted.
func (e *Engine) advanceRecovery(appendedAt oona.Micros) {
	r := e.recovery
	switch {
	case r.begun != unset:
	case r.ahead: // records that were lost at the end cannot be older than the first record
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
