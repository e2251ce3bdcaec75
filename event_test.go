package oona

import (
	"errors"
	"strings"
	"testing"
)

func validEvent() SeedEvent {
	return SeedEvent{Run: "r", Layer: "l", Seed: 1, At: 1_790_000_000_000_000, From: Dormant, To: Germinated}
}

// TestEventLimits: each limit of an event is exact, and the error names the field.
func TestEventLimits(t *testing.T) {
	evidence := func(n int) map[string]float64 {
		all := make(map[string]float64)
		for i := range n {
			all[strings.Repeat("e", i+1)] = 1
		}
		return all
	}
	for field, c := range map[string]struct{ good, bad func(*SeedEvent) }{
		"run_id":           {func(e *SeedEvent) { e.Run = RunID(strings.Repeat("r", 128)) }, func(e *SeedEvent) { e.Run = "" }},
		"layer_id":         {func(e *SeedEvent) { e.Layer = "a.b_c:d-0" }, func(e *SeedEvent) { e.Layer = LayerID(strings.Repeat("l", 129)) }},
		"timeline":         {func(e *SeedEvent) { e.Timeline = "t" }, func(e *SeedEvent) { e.Timeline = "a/b" }},
		"producer_id":      {func(e *SeedEvent) { e.Producer = "p" }, func(e *SeedEvent) { e.Producer = "a b" }},
		"command_id":       {func(e *SeedEvent) { e.Command = "c" }, func(e *SeedEvent) { e.Command = "ü" }},
		"actor":            {func(e *SeedEvent) { e.Actor = "a" }, func(e *SeedEvent) { e.Actor = "a\n" }},
		"node":             {func(e *SeedEvent) { e.Node = "n" }, func(e *SeedEvent) { e.Node = "n\x00" }},
		"blueprint_id":     {func(e *SeedEvent) { e.Blueprint = "b" }, func(e *SeedEvent) { e.Blueprint = "b?" }},
		"at":               {func(e *SeedEvent) { e.At = latestObservation - 1 }, func(e *SeedEvent) { e.At = latestObservation }},
		"seed_id":          {func(e *SeedEvent) { e.Seed = 1<<31 - 1 }, func(e *SeedEvent) { e.Seed = -1 }},
		"sequence":         {func(e *SeedEvent) { e.Sequence = 1<<63 - 1 }, func(e *SeedEvent) { e.Sequence = -1 }},
		"step":             {func(e *SeedEvent) { e.Step = 1 }, func(e *SeedEvent) { e.Step = -1 }},
		"session":          {func(e *SeedEvent) { e.Session = 1 }, func(e *SeedEvent) { e.Session = -1 }},
		"epoch":            {func(e *SeedEvent) { e.Epoch = 1 }, func(e *SeedEvent) { e.Epoch = -1 }},
		"journal_index":    {func(e *SeedEvent) { e.JournalIndex = 1 }, func(e *SeedEvent) { e.JournalIndex = -1 }},
		"trigger_position": {func(e *SeedEvent) { e.TriggerPosition = 1 }, func(e *SeedEvent) { e.TriggerPosition = -1 }},
		"trigger_index":    {func(e *SeedEvent) { e.TriggerIndex = 1 }, func(e *SeedEvent) { e.TriggerIndex = -1 }},
		"incarnation":      {func(e *SeedEvent) { e.Incarnation = 1 }, func(e *SeedEvent) { e.Incarnation = -1 }},
		"producer_epoch":   {func(e *SeedEvent) { e.ProducerEpoch = 1 }, func(e *SeedEvent) { e.ProducerEpoch = -1 }},
		"from_state":       {func(e *SeedEvent) { e.From = RolledBack }, func(e *SeedEvent) { e.From = lastState + 1 }},
		"to_state":         {func(e *SeedEvent) { e.To = RolledBack }, func(e *SeedEvent) { e.To = lastState + 1 }},
		"mark":             {func(e *SeedEvent) { e.Mark = EventRewound }, func(e *SeedEvent) { e.Mark = EventRewound + 1 }},
		"reason":           {func(e *SeedEvent) { e.Reason = strings.Repeat("a", MaxReason) }, func(e *SeedEvent) { e.Reason = strings.Repeat("a", MaxReason+1) }},
		"evidence":         {func(e *SeedEvent) { e.Evidence = evidence(MaxEvidence) }, func(e *SeedEvent) { e.Evidence = evidence(MaxEvidence + 1) }},
	} {
		good, bad := validEvent(), validEvent()
		c.good(&good)
		c.bad(&bad)
		if err := good.Validate(); err != nil {
			t.Errorf("%s at its limit: %v", field, err)
		}
		if wrong, ok := errors.AsType[*FieldError](bad.Validate()); !ok || wrong.Field != field {
			t.Errorf("%s beyond its limit: %v", field, bad.Validate())
		}
	}
	for field, change := range map[string]func(*SeedEvent){
		"at":       func(e *SeedEvent) { e.At = earliestObservation - 1 },
		"reason":   func(e *SeedEvent) { e.Reason = "\xff" },
		"evidence": func(e *SeedEvent) { e.Evidence = map[string]float64{"a b": 1} },
	} {
		e := validEvent()
		change(&e)
		if wrong, ok := errors.AsType[*FieldError](e.Validate()); !ok || wrong.Field != field {
			t.Errorf("%s: %v", field, e.Validate())
		}
	}
}

// TestEventType: the type, and so the topic, follows from the state that a seed enters now.
func TestEventType(t *testing.T) {
	topics, err := NewTopics("p")
	if err != nil {
		t.Fatal(err)
	}
	own := map[State]string{Germinated: topics.Germinated, Grafting: topics.Grafted, Fossilized: topics.Fossilized, Culled: topics.Culled}
	for from := range State(StateCount) {
		for to := range State(StateCount) {
			for mark := range EventMark(EventMarkCount) {
				want := own[to]
				if want == "" || from == to || mark != EventNormal {
					want = topics.Transitioned
				}
				e := SeedEvent{From: from, To: to, Mark: mark}
				if topic := topics.Event(&e); topic != want || e.Type() != DefaultPrefix+strings.TrimPrefix(want, "p") {
					t.Errorf("%s to %s, %s: topic %s and type %s, want %s", from, to, mark, topic, e.Type(), want)
				}
			}
		}
	}
}

// TestFutureEvents: an event may be a minute ahead of its append.
func TestFutureEvents(t *testing.T) {
	e := validEvent()
	if e.Future(e.At-60_000_000) || !e.Future(e.At-60_000_001) {
		t.Error("the limit is not a minute")
	}
}
