package oona

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
	Session      int64  // of the node
	Epoch        int64  // fencing token of the node's assignment
	JournalIndex int64  // index in the node's journal
	Blueprint    string // of the module that the seed carries
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
