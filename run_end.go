package oona

import (
	"cmp"
	"fmt"
	"slices"
)

// RunEnd says that a run has ended. The trainer sends it after its last frame, because the log
// alone cannot tell a run that has ended from one whose trainer has died. If frames of a later
// time follow, the run was resumed, and may end again: the RunEnd with the latest At counts.
type RunEnd struct {
	Run     RunID
	At      Micros // when the run ended, by the trainer's clock
	Step    int64  // the last step, or 0 if it is not known
	Outcome RunOutcome
	Reason  string // for people

	Timeline      TimelineID
	Producer      ProducerID
	ProducerEpoch int64
}

// RunOutcome says how a run has ended.
type RunOutcome uint8

// The outcomes of runs. Their ordinals are on the wire.
const (
	RunCompleted RunOutcome = iota // the training is done
	RunStopped                     // somebody or something stopped it before that; it may be resumed
	RunFailed                      // it ended with an error
)

// RunOutcomeCount is the number of outcomes; ordinals are below it.
const RunOutcomeCount = int(RunFailed) + 1

var outcomeNames = [RunOutcomeCount]string{"COMPLETED", "STOPPED", "FAILED"}

func (o RunOutcome) String() string {
	if int(o) >= RunOutcomeCount {
		return fmt.Sprintf("RunOutcome(%d)", uint8(o))
	}
	return outcomeNames[o]
}

// ParseRunOutcome returns the outcome with the name.
func ParseRunOutcome(name string) (RunOutcome, error) {
	if i := slices.Index(outcomeNames[:], name); i >= 0 {
		return RunOutcome(i), nil
	}
	return 0, fmt.Errorf("unknown outcome %q; outcomes are COMPLETED, STOPPED and FAILED", name)
}

// Validate returns a *FieldError for the first field that is not valid.
func (e *RunEnd) Validate() error {
	err := checkEventIDs([]eventID{{"run_id", string(e.Run), false}, {"timeline", string(e.Timeline), true}, {"producer_id", string(e.Producer), true}})
	if err = cmp.Or(err, checkEventTime(e.At), checkEventNumbers([]eventNumber{{"step", e.Step}, {"producer_epoch", e.ProducerEpoch}})); err != nil {
		return err
	}
	if int(e.Outcome) >= RunOutcomeCount {
		return &FieldError{"outcome", fmt.Sprintf("is ordinal %d; outcomes are 0 (COMPLETED) to %d (%s)", uint8(e.Outcome), RunOutcomeCount-1, RunFailed)}
	}
	return checkReason(e.Reason)
}

// Type returns the type of the record in the sense of CloudEvents. It does not depend on the
// prefix of topics.
func (e *RunEnd) Type() string { return DefaultPrefix + "." + kindRunEnded }
