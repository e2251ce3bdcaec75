// Package rollups is what all readers of the rollup topics share: a Reader says
// which rollups to drop, and Layers and Windows keep, within limits, what a reader
// shows of the last windows of each layer.
//
// An aggregator that restarts emits rollups again, so every reader has to drop
// repeats, and all readers must agree on what a repeat is. The triggers of a
// partition ascend in the order of emission: first by the incarnation of the log,
// then by the offset, then by the index. A Reader remembers the highest trigger
// that it has read of each partition of a topic, and rollups whose trigger is not
// above it are dropped. It also remembers the contents of recent windows, to notice
// a second content of a window.
package rollups

import (
	"fmt"
	"sync"

	"github.com/morphogenetic/oona"
)

// Outcome is what a rollup is to its reader. Only a New one is to be used.
type Outcome uint8

// The outcomes.
const (
	// New: it was not read before.
	New Outcome = iota
	// Repeat: it was read before, or its trigger is not above the highest.
	Repeat
	// Conflict: its window was read before with another content, of the same
	// records of the log. Two aggregators that are not alike have emitted it.
	Conflict
	// Remade: its window was read before with another content, of other
	// records: the log was made again, or has lost its end.
	Remade
	// Behind: its window is later than all that were read before, but its
	// trigger is below the highest. The log was made again, or has lost its
	// end, and no new incarnation of it was begun. Unlike a Repeat, it is lost
	// to the reader.
	Behind
)

// OutcomeCount is the number of outcomes; they are below it.
const OutcomeCount = int(Behind) + 1

func (o Outcome) String() string {
	switch o {
	case New:
		return "new"
	case Repeat:
		return "repeat"
	case Conflict:
		return "conflict"
	case Remade:
		return "remade"
	case Behind:
		return "behind"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Finding is what a Reader says of a rollup.
type Finding struct {
	Outcome Outcome
	// Highest is the highest trigger of the partition before the rollup. For the
	// first rollup of a partition, it is the trigger of the rollup itself.
	Highest oona.Trigger
	// Begins says that the rollup is the first of a new incarnation of the
	// partition's log. Highest.Incarnation is the one before.
	Begins bool
}

// Reader remembers what was read of the partitions of both rollup topics. Its
// zero value is ready for use, by several goroutines too.
type Reader struct {
	mu         sync.Mutex
	partitions map[place]*history
}

// place is a partition of one group's topic.
type place struct {
	group     oona.Group
	partition int32
}

// history has what a Reader remembers about a partition.
type history struct {
	begun   bool         // the fields below hold
	highest oona.Trigger // highest trigger of all rollups that were accepted
	end     oona.Micros  // the greatest of a New window
	recent  recent
}

// Read judges the next rollup of a partition of the topic of its group. The rollups
// of a partition must be passed in the order of the topic. One that is passed again is
// a Repeat.
func (r *Reader) Read(partition int32, rollup *oona.Rollup) Finding {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := place{rollup.Group, partition}
	p := r.partitions[at]
	if p == nil {
		if r.partitions == nil {
			r.partitions = make(map[place]*history)
		}
		p = new(history)
		r.partitions[at] = p
	}
	return p.read(rollup)
}

func (p *history) read(r *oona.Rollup) Finding {
	if !p.begun {
		p.begun, p.highest, p.end = true, r.Trigger, r.End
		p.recent.remember(r)
		return Finding{Outcome: New, Highest: r.Trigger}
	}
	f := Finding{Outcome: p.judge(r), Highest: p.highest}
	// A Conflict takes no part in the order: it may come from an aggregator of
	// another log.
	if f.Outcome == Conflict || !r.Trigger.After(p.highest) {
		return f
	}
	f.Begins = r.Trigger.Incarnation > p.highest.Incarnation
	p.highest = r.Trigger
	if f.Outcome == New {
		p.end = max(p.end, r.End)
		p.recent.remember(r)
	}
	return f
}

func (p *history) judge(r *oona.Rollup) Outcome {
	if before, known := p.recent.of(r); known {
		switch {
		case before.hash == r.Hash:
			return Repeat
		case before.incarnation != r.Trigger.Incarnation, before.last < r.FirstOffset, r.LastOffset < before.first:
			return Remade
		}
		return Conflict
	}
	switch {
	case r.Trigger.After(p.highest):
		return New
	case r.End > p.end:
		return Behind
	}
	return Repeat
}
