package watch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

// Event is the JSON form of an event. Its names are those of seed_event.v2.avsc.
type Event struct {
	Run             oona.RunID        `json:"run_id"`
	Layer           oona.LayerID      `json:"layer_id"`
	Seed            oona.SeedID       `json:"seed_id"`
	Sequence        int64             `json:"sequence"`
	At              time.Time         `json:"at"`
	Step            int64             `json:"step"`
	From            string            `json:"from_state"`
	To              string            `json:"to_state"`
	Reason          string            `json:"reason"`
	Evidence        map[string]number `json:"evidence,omitempty"`
	Command         string            `json:"command_id,omitempty"`
	Actor           string            `json:"actor,omitempty"`
	Node            string            `json:"node,omitempty"`
	Session         int64             `json:"session,omitempty"`
	Epoch           int64             `json:"epoch,omitempty"`
	JournalIndex    int64             `json:"journal_index,omitempty"`
	Blueprint       string            `json:"blueprint_id,omitempty"`
	Mark            string            `json:"mark,omitempty"` // unless it is NORMAL
	TriggerPosition int64             `json:"trigger_position,omitempty"`
	TriggerIndex    int32             `json:"trigger_index,omitempty"`
	Incarnation     oona.Incarnation  `json:"incarnation,omitempty"`
	Timeline        oona.TimelineID   `json:"timeline,omitempty"`
	Producer        oona.ProducerID   `json:"producer_id,omitempty"`
	ProducerEpoch   int64             `json:"producer_epoch,omitempty"`
}

// EventOf returns the JSON form of an event.
func EventOf(e *oona.SeedEvent) *Event {
	out := &Event{
		Run: e.Run, Layer: e.Layer, Seed: e.Seed, Sequence: e.Sequence, At: e.At.Time(), Step: e.Step,
		From: e.From.String(), To: e.To.String(), Reason: e.Reason,
		Command: e.Command, Actor: e.Actor, Node: e.Node, Session: e.Session, Epoch: e.Epoch, JournalIndex: e.JournalIndex, Blueprint: e.Blueprint,
		TriggerPosition: e.TriggerPosition, TriggerIndex: e.TriggerIndex, Incarnation: e.Incarnation,
		Timeline: e.Timeline, Producer: e.Producer, ProducerEpoch: e.ProducerEpoch,
	}
	switch e.Mark {
	case oona.EventAdopted:
		out.Mark = "ADOPTED"
	case oona.EventRewound:
		out.Mark = "REWOUND"
	}
	if len(e.Evidence) > 0 {
		out.Evidence = make(map[string]number, len(e.Evidence))
		for name, v := range e.Evidence {
			out.Evidence[name] = number(v)
		}
	}
	return out
}

func (e *Event) line(b *strings.Builder) {
	fmt.Fprintf(b, "event %d of seed %d  %s %s  step %d  %s -> %s", e.Sequence, e.Seed, e.Run, e.Layer, e.Step, e.From, e.To)
	if e.Mark != "" {
		b.WriteString("  " + e.Mark)
	}
	if e.Reason != "" {
		b.WriteString("  " + e.Reason)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Evidence)) {
		fmt.Fprintf(b, "  %s=%.4g", name, float64(e.Evidence[name]))
	}
}
