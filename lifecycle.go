package oona

import (
	"fmt"
	"strings"
)

// State is the lifecycle state of a seed. Its ordinals are on the wire.
type State uint8

// The states of a seed.
const (
	Dormant State = iota
	Germinated
	Training
	Grafting
	Stabilization
	Evaluating
	FineTuning
	Fossilized
	Culled
	Cancelled
	RolledBack

	lastState = RolledBack
)

// StateCount is the number of states; ordinals are below it.
const StateCount = int(lastState) + 1

var stateNames = [StateCount]string{
	"DORMANT", "GERMINATED", "TRAINING", "GRAFTING", "STABILIZATION", "EVALUATING",
	"FINE_TUNING", "FOSSILIZED", "CULLED", "CANCELLED", "ROLLED_BACK",
}

// allowed[from] has the bit of each state that from may change to.
var allowed = [StateCount]uint16{
	Dormant:       1 << Germinated,
	Germinated:    1<<Training | 1<<Cancelled,
	Training:      1<<Grafting | 1<<Culled | 1<<Cancelled,
	Grafting:      1<<Stabilization | 1<<RolledBack,
	Stabilization: 1<<Evaluating | 1<<RolledBack,
	Evaluating:    1<<FineTuning | 1<<Culled | 1<<RolledBack,
	FineTuning:    1<<Fossilized | 1<<Culled | 1<<RolledBack,
}

// Valid reports whether s is one of the eleven states.
func (s State) Valid() bool { return s <= lastState }

func (s State) String() string {
	if !s.Valid() {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return stateNames[s]
}

// ParseState returns the state with the name, which may be in any case.
func ParseState(name string) (State, error) {
	for i, n := range stateNames {
		if strings.EqualFold(n, name) {
			return State(i), nil
		}
	}
	return 0, fmt.Errorf("unknown state %q; states are %s", name, strings.Join(stateNames[:], ", "))
}

// CanBecome reports whether a seed may change from s to next in one transition.
func (s State) CanBecome(next State) bool {
	return s.Valid() && next.Valid() && allowed[s]&(1<<next) != 0
}

// Terminal reports whether no transition leads out of s.
func (s State) Terminal() bool { return s.Valid() && allowed[s] == 0 }

// Active reports whether a seed in state s computes.
func (s State) Active() bool { return s == Training || s == Grafting || s == FineTuning }

// NeedsBlueprint reports whether a seed in state s must have a blueprint.
func (s State) NeedsBlueprint() bool { return s >= Training && s <= FineTuning }
