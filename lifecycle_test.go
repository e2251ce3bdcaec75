package oona

import (
	"slices"
	"strings"
	"testing"
)

// transitions is the list of the design, by ordinal, written apart from the
// table in lifecycle.go.
var transitions = map[int][]int{
	0: {1},
	1: {2, 9},
	2: {3, 8, 9},
	3: {4, 10},
	4: {5, 10},
	5: {6, 8, 10},
	6: {7, 8, 10},
}

func TestCanBecome(t *testing.T) {
	for from := range 256 {
		for to := range 256 {
			got := State(from).CanBecome(State(to))
			want := slices.Contains(transitions[from], to)
			if got != want {
				t.Errorf("%s to %s: allowed %t, want %t", State(from), State(to), got, want)
			}
		}
	}
}

func TestStates(t *testing.T) {
	for _, tt := range []struct {
		ordinal          uint8
		state            State
		name             string
		active, terminal bool
		blueprint        bool
	}{
		{0, Dormant, "DORMANT", false, false, false},
		{1, Germinated, "GERMINATED", false, false, false},
		{2, Training, "TRAINING", true, false, true},
		{3, Grafting, "GRAFTING", true, false, true},
		{4, Stabilization, "STABILIZATION", false, false, true},
		{5, Evaluating, "EVALUATING", false, false, true},
		{6, FineTuning, "FINE_TUNING", true, false, true},
		{7, Fossilized, "FOSSILIZED", false, true, false},
		{8, Culled, "CULLED", false, true, false},
		{9, Cancelled, "CANCELLED", false, true, false},
		{10, RolledBack, "ROLLED_BACK", false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.state
			if uint8(s) != tt.ordinal || s.String() != tt.name || !s.Valid() {
				t.Errorf("ordinal %d, name %s, valid %t; want %d, %s, true", uint8(s), s, s.Valid(), tt.ordinal, tt.name)
			}
			if s.Active() != tt.active || s.Terminal() != tt.terminal || s.NeedsBlueprint() != tt.blueprint {
				t.Errorf("active %t, terminal %t, needs blueprint %t; want %t, %t, %t",
					s.Active(), s.Terminal(), s.NeedsBlueprint(), tt.active, tt.terminal, tt.blueprint)
			}
			for _, name := range []string{tt.name, strings.ToLower(tt.name)} {
				if parsed, err := ParseState(name); parsed != s || err != nil {
					t.Errorf("ParseState(%q) = %s, %v", name, parsed, err)
				}
			}
		})
	}
	if StateCount != 11 {
		t.Errorf("StateCount = %d, want 11", StateCount)
	}
}

func TestUnknownState(t *testing.T) {
	for _, s := range []State{11, 255} {
		if s.Valid() || s.Terminal() || s.Active() || s.NeedsBlueprint() {
			t.Errorf("%s: valid %t, terminal %t, active %t, needs blueprint %t; want all false",
				s, s.Valid(), s.Terminal(), s.Active(), s.NeedsBlueprint())
		}
	}
	if got, want := State(11).String(), "State(11)"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	if s, err := ParseState("ASLEEP"); err == nil {
		t.Errorf("ASLEEP is %s", s)
	}
}
