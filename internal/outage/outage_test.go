package outage

import (
	"testing"
	"time"
)

// A failure is logged when it begins, when its reason changes, and every ten minutes. What was not
// logged is counted. After its end, the next failure is a new one.
func TestOutage(t *testing.T) {
	var o Outage
	if o.Ends() {
		t.Error("it had failed before the first failure")
	}
	for i, step := range []struct {
		reason  string
		at      time.Duration
		skipped int
		say     bool
	}{
		{"missing", 0, 0, true},
		{"missing", time.Second, 0, false},
		{"missing", Again - 1, 0, false},
		{"missing", Again, 2, true},
		{"missing", Again + time.Second, 0, false},
		{"denied", Again + 2*time.Second, 1, true},
		{"denied", 2*Again + time.Second, 0, false},
		{"denied", 2*Again + 2*time.Second, 1, true},
	} {
		if skipped, say := o.Fails(step.reason, time.Unix(0, 0).Add(step.at)); skipped != step.skipped || say != step.say {
			t.Errorf("step %d: %d, %t, want %+v", i, skipped, say, step)
		}
	}
	if !o.Ends() || o.Ends() {
		t.Error("the failure ends not at all, or twice")
	}
	if skipped, say := o.Fails("denied", time.Unix(0, 0)); skipped != 0 || !say {
		t.Errorf("the next failure: %d, %t", skipped, say)
	}
}
