package oona

import (
	"errors"
	"strings"
	"testing"
)

func TestRunEndValidate(t *testing.T) {
	valid := RunEnd{Run: "r", At: 1_790_000_001_000_000}
	if err := valid.Validate(); err != nil {
		t.Errorf("an end with nothing but what is needed: %v", err)
	}
	full := RunEnd{Run: "r", At: 1_790_000_001_000_000, Step: 1, Outcome: RunFailed, Reason: strings.Repeat("a", MaxReason), Timeline: "t", Producer: "p", ProducerEpoch: 1}
	if err := full.Validate(); err != nil {
		t.Errorf("a full end: %v", err)
	}
	for field, change := range map[string]func(*RunEnd){
		"run_id":         func(e *RunEnd) { e.Run = "" },
		"timeline":       func(e *RunEnd) { e.Timeline = "a b" },
		"producer_id":    func(e *RunEnd) { e.Producer = "/" },
		"at":             func(e *RunEnd) { e.At = 1_790_000_001 },
		"step":           func(e *RunEnd) { e.Step = -1 },
		"producer_epoch": func(e *RunEnd) { e.ProducerEpoch = -1 },
		"outcome":        func(e *RunEnd) { e.Outcome = RunOutcome(RunOutcomeCount) },
		"reason":         func(e *RunEnd) { e.Reason += "a" },
	} {
		e := full
		change(&e)
		if wrong, ok := errors.AsType[*FieldError](e.Validate()); !ok || wrong.Field != field {
			t.Errorf("a wrong %s: %v", field, wrong)
		}
	}
	full.Reason = "\xff"
	if wrong, ok := errors.AsType[*FieldError](full.Validate()); !ok || wrong.Field != "reason" {
		t.Errorf("a reason that is not UTF-8: %v", wrong)
	}
}

func TestRunOutcomes(t *testing.T) {
	for i := range RunOutcomeCount {
		o := RunOutcome(i)
		if again, err := ParseRunOutcome(o.String()); err != nil || again != o {
			t.Errorf("%s: %v, %v", o, again, err)
		}
	}
	if _, err := ParseRunOutcome("completed"); err == nil {
		t.Error("an outcome in small letters was accepted")
	}
	if got := RunOutcome(9).String(); got != "RunOutcome(9)" {
		t.Errorf("an unknown outcome is %s", got)
	}
}
