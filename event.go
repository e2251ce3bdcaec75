package oona

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// SeedEvent records one lifecycle transition of a seed. Its identity is (Run,
// Layer, Seed, Sequence). The fields from Command on are empty in events of
// version 1 and in events that did not come from the control plane.
type SeedEvent struct {
	Run      RunID
	Layer    LayerID
	Seed     SeedID
	Sequence int64 // counts the events of the seed; orders them across topics
	At       Micros
	Step     int64
	From, To State
	Reason   string             // the criterion, in words
	Evidence map[string]float64 // the measurements that met the criterion

	Command      string // the command that asked for the transition
	Actor        string // the sender of the command
	Node         string // the node that carried it out
	Session      int64  // session of the node
	Epoch        int64  // fencing token of the node's assignment
	JournalIndex int64  // index in the node's journal
	Blueprint    string // blueprint of the module that the seed carries
	Mark         EventMark
	// TriggerPosition, TriggerIndex and Incarnation locate the record of the
	// control log that the event came from. TriggerPosition is 0 if the event
	// did not come from a control log.
	TriggerPosition int64
	TriggerIndex    int32
	Incarnation     Incarnation
	Timeline        TimelineID
	Producer        ProducerID
	ProducerEpoch   int64
}

// EventMark says how an event came about.
type EventMark uint8

// The marks of events. Their ordinals are on the wire.
const (
	EventNormal  EventMark = iota // a transition was carried out
	EventAdopted                  // a seed was found in this state
	EventRewound                  // a seed returned to its state in a checkpoint
)

// EventMarkCount is the number of marks; ordinals are below it.
const EventMarkCount = int(EventRewound) + 1

var markNames = [EventMarkCount]string{"NORMAL", "ADOPTED", "REWOUND"}

func (m EventMark) String() string {
	if int(m) >= EventMarkCount {
		return fmt.Sprintf("EventMark(%d)", uint8(m))
	}
	return markNames[m]
}

// ParseEventMark returns the mark with the name.
func ParseEventMark(name string) (EventMark, error) {
	if i := slices.Index(markNames[:], name); i >= 0 {
		return EventMark(i), nil
	}
	return 0, fmt.Errorf("unknown mark %q; marks are NORMAL, ADOPTED and REWOUND", name)
}

// Limits of events.
const (
	MaxReason   = 1 << 10 // bytes
	MaxEvidence = 64      // entries
)

// MaxEventSkew is how far the time of an event may be ahead of its append to the log. It is
// what frames may have unless configured otherwise.
const MaxEventSkew Micros = 60_000_000

// Future reports whether the time of an event that was appended then cannot be right. The
// transition has happened nevertheless.
func (e *SeedEvent) Future(appended Micros) bool { return e.At-appended > MaxEventSkew }

// Validate returns a *FieldError for the first field that is not valid. It accepts transitions that
// the lifecycle does not allow: an event reports what has happened, and all events of a seed are
// needed to tell which of them is wrong.
func (e *SeedEvent) Validate() error {
	if err := e.validateIDs(); err != nil {
		return err
	}
	if err := e.validateNumbers(); err != nil {
		return err
	}
	for _, s := range []struct {
		field string
		state State
	}{{"from_state", e.From}, {"to_state", e.To}} {
		if !s.state.Valid() {
			return &FieldError{s.field, fmt.Sprintf("is ordinal %d; states are 0 (DORMANT) to %d (%s)", uint8(s.state), uint8(lastState), lastState)}
		}
	}
	if int(e.Mark) >= EventMarkCount {
		return &FieldError{"mark", fmt.Sprintf("is ordinal %d; marks are 0 (NORMAL) to %d (%s)", uint8(e.Mark), EventMarkCount-1, EventRewound)}
	}
	return e.validateEvidence()
}

func (e *SeedEvent) validateIDs() error {
	return checkEventIDs([]eventID{
		{"run_id", string(e.Run), false},
		{"layer_id", string(e.Layer), false},
		{"timeline", string(e.Timeline), true},
		{"producer_id", string(e.Producer), true},
		{"command_id", e.Command, true},
		{"actor", e.Actor, true},
		{"node", e.Node, true},
		{"blueprint_id", e.Blueprint, true},
	})
}

// eventID is an id of an event. One that is optional may be empty.
type eventID struct {
	field, value string
	optional     bool
}

// checkEventIDs returns a *FieldError for the first id that is not valid.
func checkEventIDs(ids []eventID) error {
	for _, id := range ids {
		if id.value == "" && id.optional {
			continue
		}
		if err := CheckID(id.field, id.value); err != nil {
			return err
		}
	}
	return nil
}

// checkEventTime returns a *FieldError if an event cannot have happened then.
func checkEventTime(at Micros) error {
	if at < earliestObservation || at >= latestObservation {
		return &FieldError{"at", fmt.Sprintf("is %d microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?", at)}
	}
	return nil
}

// eventNumber is a number of an event.
type eventNumber struct {
	field string
	value int64
}

// checkEventNumbers returns a *FieldError for the first number that is negative.
func checkEventNumbers(numbers []eventNumber) error {
	for _, n := range numbers {
		if n.value < 0 {
			return &FieldError{n.field, fmt.Sprintf("is %d; it is 0 or greater", n.value)}
		}
	}
	return nil
}

// checkReason returns a *FieldError for the reason of an event that is not valid.
func checkReason(reason string) error {
	switch {
	case len(reason) > MaxReason:
		return &FieldError{"reason", fmt.Sprintf("has %d bytes; at most %d are allowed", len(reason), MaxReason)}
	case !utf8.ValidString(reason):
		return &FieldError{"reason", "is not UTF-8"}
	}
	return nil
}

func (e *SeedEvent) validateNumbers() error {
	if err := checkEventTime(e.At); err != nil {
		return err
	}
	return checkEventNumbers([]eventNumber{
		{"seed_id", int64(e.Seed)},
		{"sequence", e.Sequence},
		{"step", e.Step},
		{"session", e.Session},
		{"epoch", e.Epoch},
		{"journal_index", e.JournalIndex},
		{"trigger_position", e.TriggerPosition},
		{"trigger_index", int64(e.TriggerIndex)},
		{"incarnation", int64(e.Incarnation)},
		{"producer_epoch", e.ProducerEpoch},
	})
}

func (e *SeedEvent) validateEvidence() error {
	if err := checkReason(e.Reason); err != nil {
		return err
	}
	if len(e.Evidence) > MaxEvidence {
		return &FieldError{"evidence", fmt.Sprintf("has %d entries; at most %d are allowed", len(e.Evidence), MaxEvidence)}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Evidence)) {
		if fault := idFault(name); fault != "" {
			return &FieldError{"evidence", fmt.Sprintf("the name %.64q %s", name, fault)}
		}
	}
	return nil
}

// Type returns the type of the event in the sense of CloudEvents. It does not depend on the
// prefix of topics.
func (e *SeedEvent) Type() string { return DefaultPrefix + "." + e.kind() }

// kind returns what kind of event it is: the name of its topic, after the prefix. The four
// states that have a kind of their own have it for seeds that enter the state now.
func (e *SeedEvent) kind() string {
	if e.From != e.To && e.Mark == EventNormal {
		switch e.To {
		case Germinated:
			return kindGerminated
		case Grafting:
			return kindGrafted
		case Fossilized:
			return kindFossilized
		case Culled:
			return kindCulled
		}
	}
	return kindTransitioned
}

const (
	kindGerminated   = "events.seed.germinated"
	kindGrafted      = "events.seed.grafted"
	kindFossilized   = "events.seed.fossilized"
	kindCulled       = "events.seed.culled"
	kindTransitioned = "events.seed.transitioned"
	kindRunEnded     = "events.run.ended"
)
