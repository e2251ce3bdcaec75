package audit_test

import (
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

// TestBytesAfterAnEvent: a record that has more than its event is not a valid event.
func TestBytesAfterAnEvent(t *testing.T) {
	r := newTrail(t)
	e := event(0, oona.Dormant, oona.Germinated)
	r.publish(r.topics.Event(&e), bus.NewMessage(append(avro.AppendEvent(nil, &e), 0), target(&e)))
	if s, lives := r.run(audit.Options{Seed: oona.AnySeed}); len(lives) != 0 || s.Faults[audit.Unreadable] != 1 || len(s.Faults) != 1 {
		t.Errorf("%d lives, %v", len(lives), s.Faults)
	}
}

// TestOneWriter: a run that only the control plane writes has one writer, and so has one that only a
// trainer writes.
func TestOneWriter(t *testing.T) {
	r := newTrail(t)
	for _, run := range []oona.RunID{"control", "trainer"} {
		all := way()
		for i := range all {
			all[i].Run = run
			if run == "control" {
				all[i].TriggerPosition = int64(i + 1)
			}
		}
		r.write(all...)
	}
	if s, _ := r.run(audit.Options{Seed: oona.AnySeed}); s.Seeds != 2 || s.Flagged() {
		t.Errorf("%+v", s)
	}
}
