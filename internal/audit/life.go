package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
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
	Repeats int          // number of further records with the same bytes, in any partition
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

// stored is a record of a seed, with its repeats in the same partition.
type stored struct {
	payload  []byte
	at       bus.Position // of the earliest record, without key
	last     placed       // the latest record
	records  int
	sequence int64
	fault    string // why the record is in the wrong place, or ""
}

// placed is where and when a record was appended to a partition.
type placed struct {
	offset   int64
	appended oona.Micros
}

// merge adds a repeat. It returns false if other is no repeat in the same partition.
func (r *stored) merge(other *stored) bool {
	if r.at.Topic != other.at.Topic || r.at.Partition != other.at.Partition || (r.fault != "") != (other.fault != "") || !bytes.Equal(r.payload, other.payload) {
		return false
	}
	if other.at.Appended < r.at.Appended {
		r.at = other.at
	}
	if other.last.appended >= r.last.appended {
		r.last = other.last
	}
	r.records++
	return true
}

// states is a set of states.
type states uint32

func only(s oona.State) states { return 1 << s }

func (s states) String() string {
	var names []string
	for state := range oona.State(oona.StateCount) {
		if s&only(state) != 0 {
			names = append(names, state.String())
		}
	}
	return strings.Join(names, " or ")
}

// past is what is known of a seed before an event.
type past struct {
	known bool   // whether the seed began here, or the event before is known
	next  int64  // sequence number of the event that must follow
	in    states // those in which the seed may be: several if events are in conflict, as nobody knows which has happened
}

// lifeOf returns the life of a seed. whole is true if what was read includes the first events of the
// seed.
func lifeOf(of *kept, whole bool) (*Life, error) {
	records, outside := of.records, slices.Sorted(maps.Keys(of.outside))
	slices.SortStableFunc(records, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.at.Appended, b.at.Appended))
	})
	l := new(Life)
	before := past{whole || records[0].sequence == 0, 0, only(oona.Dormant)} // nothing comes before sequence 0
	for len(records) > 0 {
		sequence, n := records[0].sequence, 1
		for n < len(records) && records[n].sequence == sequence {
			n++
		}
		for len(outside) > 0 && outside[0] < sequence {
			before = past{true, outside[0] + 1, of.outside[outside[0]]}
			outside = outside[1:]
		}
		to, err := l.add(records[:n], before, of.outside[sequence])
		if err != nil {
			return nil, err
		}
		if len(outside) > 0 && outside[0] == sequence {
			outside = outside[1:]
		}
		before = past{true, sequence + 1, to}
		records = records[n:]
	}
	first := l.Events[0]
	l.Run, l.Layer, l.Seed = first.Run, first.Layer, first.Seed
	return l, nil
}

// add adds the records of the events with one identity, and returns the states to which these lead.
// outside has the states to which events with this identity lead that are outside the range of times.
func (l *Life) add(same []stored, before past, outside states) (to states, err error) {
	first := len(l.Events)
	to = outside
	for len(same) > 0 {
		r := same[0]
		e := Event{Record: r.at}
		if _, err := avro.DecodeEvent(r.payload, &e.SeedEvent); err != nil {
			return 0, fmt.Errorf("offset %d of %s/%d: %w", r.at.Offset, r.at.Topic, r.at.Partition, err)
		}
		var others []stored
		for _, other := range same {
			if !bytes.Equal(other.payload, r.payload) {
				others = append(others, other)
				continue
			}
			e.Repeats += other.records
			if other.fault != "" {
				e.Faults = append(e.Faults, Fault{Place, fmt.Sprintf("offset %d of %s/%d: %s", other.last.offset, other.at.Topic, other.at.Partition, other.fault)})
			}
		}
		e.Repeats--
		if len(l.Events) > first || len(others) > 0 || outside != 0 {
			e.Faults = append(e.Faults, Fault{Conflict, fmt.Sprintf("sequence %d was written several times with different contents; this one is at offset %d of %s/%d", r.sequence, r.at.Offset, r.at.Topic, r.at.Partition)})
		}
		if e.Future(r.at.Appended) {
			e.Faults = append(e.Faults, Fault{Future, fmt.Sprintf("at is %s, but offset %d of %s/%d was appended at %s, before that; correct the trainer's clock, or the unit of at",
				e.At.Time().Format(stamp), r.at.Offset, r.at.Topic, r.at.Partition, r.at.Appended.Time().Format(stamp))})
		}
		e.compare(before)
		l.Events = append(l.Events, e)
		to |= only(e.To)
		same = others
	}
	return to, nil
}

// compare finds faults between an event and what came before it.
func (e *Event) compare(before past) {
	known := before.known
	if known && e.Sequence > before.next {
		e.Faults = append(e.Faults, Fault{Gap, missing(before.next, e.Sequence-1)})
		known = false
	}
	if e.Mark != oona.EventNormal {
		return // such an event may start from any state
	}
	switch {
	case known && before.in&only(e.From) == 0:
		e.Faults = append(e.Faults, Fault{Transition, fmt.Sprintf("from_state is %s, but the seed was %s", e.From, before.in)})
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
