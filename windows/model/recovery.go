package model

import "math"

// recovery is the state of the model of a log that has lost records: where the log ended
// when the engine was restarted, and from where on windows are emitted.
type recovery struct {
	end   int64 // offset
	ahead bool  // records at the log's end are lost, too
	begun int64 // append times below may be of records that are lost
	emits bool
	from  int64
}

// Restart returns the model of a log that has lost records, at its beginning or its
// end, and that ended at an offset when the engine was restarted. M is the model of
// the log up to the last commit, or a new one if the commit is lost. The result has m's
// configurations and the greatest append time that m has seen.
func (m *Model) Restart(end int64) *Model {
	n := len(m.Accounts)
	ahead := n > 0 && m.Accounts[n-1].Record.Offset >= end
	return &Model{
		Mutant: m.Mutant, about: m.about, cfg: m.cfg, epochs: m.epochs, latest: m.latest, incarnation: m.incarnation,
		floor: math.MinInt64, recovery: &recovery{end: end, ahead: ahead},
	}
}

// Recovering reports whether the log has lost records.
func (m *Model) Recovering() bool { return m.recovery != nil }

// EmitsFrom returns the event time from which on windows are emitted, and false if
// none are.
func (m *Model) EmitsFrom() (from int64, emits bool) {
	if m.recovery == nil {
		return math.MinInt64, true
	}
	return m.recovery.from, m.recovery.emits
}

// suppresses reports whether the window with this start is not emitted.
func (m *Model) suppresses(start int64) bool {
	return m.recovery != nil && (!m.recovery.emits || start < m.recovery.from)
}

// advanceRecovery checks whether the loss can still make a difference. It cannot once the
// log has been read to where it ended, for so long that no frame from before the loss is
// accepted any more and that every active producer was seen.
func (m *Model) advanceRecovery(first bool, offset int64) {
	l := m.recovery
	switch {
	case first && l.ahead: // what is lost at the end does not come before the first record
		l.begun = m.last
	case first:
		l.begun = m.latest
	}
	var horizon, skew int64
	for _, e := range m.epochs {
		if !e.expired {
			quarter := (e.cfg.IdleHorizon.Microseconds() + 3) / 4
			horizon, skew = max(horizon, 5*quarter), max(skew, e.cfg.MaxSkew.Microseconds())
		}
	}
	if !l.emits && offset >= l.end && m.clock >= horizon && m.latest-m.retention() > l.begun {
		l.emits, l.from = true, m.latest+skew+1
	}
}

// Retention returns for how long, by append times, a frame can make a difference.
func (m *Model) Retention() int64 { return m.retention() }
