package remedy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/remedy"
)

// Every error of the bus that users can correct says how.
func TestAdd(t *testing.T) {
	if err := remedy.Add(nil); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("other"), ""},
		{bus.ErrUnreachable, "--brokers"},
		{bus.ErrNoTopic, "oona topics apply"},
		{bus.ErrInstance, "--group-instance"},
		{bus.ErrForeignAssignment, "--group"},
		{&bus.PartitionsError{Topic: "t", Had: 3, Has: 4}, "oona topics apply --prefix NEW --partitions 4"},
	} {
		wrapped := fmt.Errorf("start: %w", tt.err)
		got := remedy.Add(wrapped)
		if !errors.Is(got, tt.err) || !strings.HasPrefix(got.Error(), wrapped.Error()) || !strings.Contains(got.Error(), tt.want) {
			t.Errorf("%v became %v", wrapped, got)
		}
	}
}

func TestTopicFaults(t *testing.T) {
	wrong := &bus.TopicsError{}
	for kind := bus.FaultMissing; kind < bus.FaultCopies; kind++ {
		wrong.Faults = append(wrong.Faults, bus.TopicFault{Topic: "t", Kind: kind, Fault: "is wrong"})
	}
	wrong.Faults = append(wrong.Faults, bus.TopicFault{Topic: "t", Kind: bus.FaultCopies, Fault: "has one copy", Remedy: "the bus knows what to do"})
	if err := remedy.Add(fmt.Errorf("start: %w", wrong)); !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	for _, f := range wrong.Faults {
		if f.Remedy == "" || f.Kind == bus.FaultCopies && f.Remedy != "the bus knows what to do" {
			t.Errorf("%+v", f)
		}
	}
}
