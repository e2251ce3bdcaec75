package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	Gap        Kind = "gap"        // sequence numbers before this event are missing
	Conflict   Kind = "conflict"   // another event has the same identity
	Transition Kind = "transition" // the lifecycle does not allow the transition, or the seed was in another state
	Place      Kind = "place"      // the record is in the wrong topic or partition, or has the wrong key
	Future     Kind = "future"     // the time of the event is later than the append of its record
	Writers    Kind = "writers"    // the run has events of the control plane and of a trainer
	Unreadable Kind = "unreadable" // the record is not a valid event
)

// Fault is a fault of an event, a record or a run.
type Fault struct {
	Kind   Kind   `json:"kind"`
	Detail string `json:"detail"`
}

// Event is an event of a life, with its faults.
type Event struct {
	oona.SeedEvent
	Record  bus.Position // position of the first record with this event
	Repeats int          // number of further records with the same bytes
	Faults  []Fault
}

// Life has the events of a seed, in the order of their sequence numbers.
type Life struct {
	Run    oona.RunID
	Layer  oona.LayerID
	Seed   oona.SeedID
	Events []Event
}

// Flagged reports whether the life has a fault.
func (l *Life) Flagged() bool {
	return slices.ContainsFunc(l.Events, func(e Event) bool { return len(e.Faults) > 0 })
}

// stamp is the format of times in the texts of faults.
const stamp = "2006-01-02T15:04:05.000Z"

// stored is a record of a seed.
type stored struct {
	payload  []byte
	at       bus.Position // without key
	sequence int64
	fault    string // why the record is in the wrong place, or ""
}

// lifeOf returns the life of a seed from its records. whole is true if the records include the
// first events of the seed.
func lifeOf(records []stored, whole bool) (*Life, error) {
	slices.SortStableFunc(records, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.at.Appended, b.at.Appended))
	})
	l := new(Life)
	for i := 0; i < len(records); {
		same := records[i:]
		for n, r := range same {
			if r.sequence != same[0].sequence {
				same = same[:n]
				break
			}
		}
		i += len(same)
		if err := l.add(same, whole); err != nil {
			return nil, err
		}
	}
	first := l.Events[0]
	l.Run, l.Layer, l.Seed = first.Run, first.Layer, first.Seed
	return l, nil
}

// add adds the records of the events with one identity.
func (l *Life) add(same []stored, whole bool) error {
	before := l.last()
	first := len(l.Events)
	for len(same) > 0 {
		r := same[0]
		e := Event{Record: r.at}
		if _, err := avro.DecodeEvent(r.payload, &e.SeedEvent); err != nil {
			return fmt.Errorf("offset %d of %s/%d: %w", r.at.Offset, r.at.Topic, r.at.Partition, err)
		}
		var others []stored
		for _, other := range same {
			if !bytes.Equal(other.payload, r.payload) {
				others = append(others, other)
				continue
			}
			e.Repeats++
			if other.fault != "" {
				e.Faults = append(e.Faults, Fault{Place, fmt.Sprintf("offset %d of %s/%d: %s", other.at.Offset, other.at.Topic, other.at.Partition, other.fault)})
			}
		}
		e.Repeats--
		if len(l.Events) > first || len(others) > 0 {
			e.Faults = append(e.Faults, Fault{Conflict, fmt.Sprintf("sequence %d has several contents; this one is at offset %d of %s/%d", r.sequence, r.at.Offset, r.at.Topic, r.at.Partition)})
		}
		if e.Future(r.at.Appended) {
			e.Faults = append(e.Faults, Fault{Future, fmt.Sprintf("at is %s, but offset %d of %s/%d was appended at %s: the trainer's clock, or the unit, is wrong",
				e.At.Time().Format(stamp), r.at.Offset, r.at.Topic, r.at.Partition, r.at.Appended.Time().Format(stamp))})
		}
		e.compare(before, whole)
		l.Events = append(l.Events, e)
		same = others
	}
	return nil
}

// last returns the events with the greatest sequence so far. They are several if they are in
// conflict.
func (l *Life) last() []Event {
	first := len(l.Events)
	for first > 0 && l.Events[first-1].Sequence == l.Events[len(l.Events)-1].Sequence {
		first--
	}
	return l.Events[first:]
}

// compare finds faults between an event and the previous one. before is empty for the first event,
// and has several events if they are in conflict: one of them has happened, and nobody knows which.
func (e *Event) compare(before []Event, whole bool) {
	next, states := int64(0), []string{oona.Dormant.String()}
	if len(before) > 0 {
		next, states = before[0].Sequence+1, nil
		for _, b := range before {
			states = append(states, b.To.String())
		}
	}
	known := len(before) > 0 || whole
	if known && e.Sequence > next {
		e.Faults = append(e.Faults, Fault{Gap, missing(next, e.Sequence-1)})
		known = false
	}
	if e.Mark != oona.EventNormal {
		return // such an event may start from any state
	}
	switch {
	case known && !slices.Contains(states, e.From.String()):
		e.Faults = append(e.Faults, Fault{Transition, fmt.Sprintf("from_state is %s, but the seed was %s", e.From, strings.Join(slices.Compact(states), " or "))})
	case e.From != e.To && !e.From.CanBecome(e.To):
		e.Faults = append(e.Faults, Fault{Transition, fmt.Sprintf("the lifecycle has no transition from %s to %s", e.From, e.To)})
	}
}

func missing(first, last int64) string {
	if first == last {
		return fmt.Sprintf("sequence %d is missing", first)
	}
	return fmt.Sprintf("sequences %d to %d are missing", first, last)
}
