package oona

// SeedEvent records one lifecycle transition of a seed. Its identity is (Run,
// Layer, Seed, Sequence). The fields from Command on are empty in events that
// the control plane did not make, and in those of version 1.
type SeedEvent struct {
	Run      RunID
	Layer    LayerID
	Seed     SeedID
	Sequence int64 // counts the seed's own events, so that its trail can be ordered across topics
	At       Micros
	Step     int64
	From, To State
	Reason   string             // the criterion, in words
	Evidence map[string]float64 // what was measured when it was met

	Command      string // the command that asked for the transition
	Actor        string // who sent the command
	Node         string // the node that carried it out
	Session      int64  // of the node
	Epoch        int64  // fencing token of the node's assignment
	JournalIndex int64  // place in the node's journal
	Blueprint    string // of the module that the seed carries
	Mark         EventMark
	// TriggerPosition, TriggerIndex and Incarnation are the place in the
	// control log that the event came from. A TriggerPosition of 0: it came
	// from no control log.
	TriggerPosition int64
	TriggerIndex    int32
	Incarnation     Incarnation
	Timeline        TimelineID
	Producer        ProducerID
	ProducerEpoch   int64
}

// EventMark says how an event came about.
type EventMark uint8

// The marks of events. The ordinals are on the wire.
const (
	EventNormal  EventMark = iota // a transition that was carried out
	EventAdopted                  // the state in which a seed was found
	EventRewound                  // a return to the state of a checkpoint
)

// EventMarkCount is the number of marks; ordinals are below it.
const EventMarkCount = int(EventRewound) + 1
