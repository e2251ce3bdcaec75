package verdict

import (
	"errors"
	"fmt"
)

// Side says which deviations of a level are faults.
type Side uint8

// The sides. The zero Side is for metrics whose level is not judged.
const (
	NoSide Side = iota
	Up
	Down
	Both // Up | Down
)

func (s Side) String() string {
	switch s {
	case NoSide:
		return "none"
	case Up:
		return "up"
	case Down:
		return "down"
	case Both:
		return "both"
	}
	return fmt.Sprintf("Side(%d)", uint8(s))
}

// Rule says what is judged about a metric. The zero Rule judges nothing, not even
// infinities. Multiples are ratios: a Warn of 2 means at least twice or at most half of
// the usual median.
type Rule struct {
	Judged bool // whether infinite samples are critical, and the other fields have an effect
	// Level says on which sides of its expected range the median is a fault. If it is NoSide, no
	// range is learnt.
	Level Side
	// Warn and Critical are the smallest multiples that are a warning or critical, for the kinds
	// High and Low. A deviation must also be unusual: see package verdict. If Critical is 0, these
	// kinds are never critical because of their multiple.
	Warn, Critical float64
	// Due says that each seed in an active state has a value in each frame.
	Due bool
	// Dead says that the metric is a share, and that a sample above 0.9 means a dead unit.
	Dead bool
	// Best says that the level should fall. Twice the best level is the fault Regressed.
	Best bool
	// Drift says that a slow rise to four times the level is a fault.
	Drift bool
	// Stuck says that samples which repeat exactly are a fault.
	Stuck bool
	// Outlier is the multiple by which the greatest sample must be further above the median than
	// usual to be a fault. 0 means that outliers are not judged.
	Outlier float64
}

// MaxMultiple is the greatest multiple that a rule may have.
const MaxMultiple = 1e12

// RuleError says which field of a rule is wrong. Key is the field's name in a catalogue.
type RuleError struct{ Key, Reason string }

func (e *RuleError) Error() string { return e.Key + " " + e.Reason }

// Validate returns a *RuleError for each field that is wrong, joined.
func (r Rule) Validate() error {
	var faults []error
	fault := func(bad bool, key, reason string) {
		if bad {
			faults = append(faults, &RuleError{key, reason})
		}
	}
	if !r.Judged {
		fault(r != Rule{}, "verdict", "is off, so it can have no other key")
		return errors.Join(faults...)
	}
	fault(r.Level > Both, "level", "must be up, down, both or none")
	if r.Level == NoSide {
		fault(r.Warn != 0, "warn", "needs a level")
		fault(r.Critical != 0, "critical", "needs a level")
		fault(r.Best, "best", "needs a level")
		fault(r.Drift, "drift", "needs a level")
		fault(r.Outlier != 0, "outlier", "needs a level")
		return errors.Join(faults...)
	}
	fault(!multiple(r.Warn), "warn", fmt.Sprintf("is %v; give a multiple from 1.1 to %g", r.Warn, MaxMultiple))
	fault(r.Critical != 0 && !multiple(r.Critical), "critical", fmt.Sprintf("is %v; give a multiple from 1.1 to %g, or never", r.Critical, MaxMultiple))
	fault(r.Critical != 0 && r.Critical < r.Warn, "critical", fmt.Sprintf("is %v, below warn, which is %v", r.Critical, r.Warn))
	fault(r.Outlier != 0 && !multiple(r.Outlier), "outlier", fmt.Sprintf("is %v; give a multiple from 1.1 to %g", r.Outlier, MaxMultiple))
	return errors.Join(faults...)
}

// multiple reports whether x is a multiple that a rule may have. NaN is not.
func multiple(x float64) bool { return x >= 1.1 && x <= MaxMultiple }
