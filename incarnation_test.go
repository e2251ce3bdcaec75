package oona

import (
	"errors"
	"testing"
)

func TestTriggersAscendByIncarnationFirst(t *testing.T) {
	ascending := []Trigger{{0, 9, 9}, {0, 10, 0}, {0, 10, 1}, {5, 0, 0}, {5, 0, 1}, {5, 2, 0}, {6, 0, 0}}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.After(b), i > j; got != want {
				t.Errorf("%+v after %+v is %t", a, b, got)
			}
		}
	}
}

func TestNextIncarnationIsAboveAllKnown(t *testing.T) {
	const now = 1_800_000_000_000_000
	for _, c := range []struct {
		known []Incarnation
		want  Incarnation
	}{
		{nil, now},
		{[]Incarnation{0, now - 60e6}, now},
		{[]Incarnation{now - 1}, now - 1 + 60e6},
		{[]Incarnation{now + 3600e6, 7}, now + 3660e6},
	} {
		if got := NextIncarnation(now, c.known...); got != c.want {
			t.Errorf("after %d it is %d, want %d", c.known, got, c.want)
		}
	}
}

func TestIncarnationStartIsValidated(t *testing.T) {
	good := IncarnationStart{Number: 1_800_000_000_000_000, PreviousEnd: NoOffset}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for field, spoil := range map[string]func(*IncarnationStart){
		"number":       func(s *IncarnationStart) { s.Number = 3 },
		"previous_end": func(s *IncarnationStart) { s.PreviousEnd = -2 },
	} {
		bad := good
		spoil(&bad)
		var e *FieldError
		if err := bad.Validate(); !errors.As(err, &e) || e.Field != field {
			t.Errorf("with a wrong %s the error is %v", field, err)
		}
	}
}
